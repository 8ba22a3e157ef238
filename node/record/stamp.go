package record

import (
	"cmp"
	"fmt"
	"time"
)

// Stamp is a 64-bit hybrid-time stamp: 47 bits of time in units of 8 µs since 2025-01-01 UTC, then
// 16 bits of node slot; the top bit is 0. Zero means "none". 47 bits of 8 µs last until 2060, and
// allow 125,000 stamps a second, node and hybrid time before that runs ahead of the clock; a node has many, see replica.Fence.
type Stamp uint64

// Unit is the resolution of a Stamp's time.
const Unit = 8 * time.Microsecond

const (
	slotBits = 16
	epochUTC = 1735689600 // 2025-01-01T00:00:00Z, Unix seconds
	maxTicks = 1<<47 - 1
)

// Ticks converts t to stamp time. Times before 2025 give 0.
func Ticks(t time.Time) uint64 {
	d := t.Unix() - epochUTC
	if d < 0 {
		return 0
	}
	return min(uint64(d)*uint64(time.Second/Unit)+uint64(t.Nanosecond())/uint64(Unit), maxTicks)
}

// NewStamp joins a tick count (see Ticks) and a node slot.
func NewStamp(ticks uint64, slot uint16) Stamp {
	return Stamp(min(ticks, maxTicks)<<slotBits | uint64(slot))
}

// Ticks is the time part.
func (s Stamp) Ticks() uint64 { return uint64(s) >> slotBits }

// Slot is the slot of the node that made the stamp.
func (s Stamp) Slot() uint16 { return uint16(s) }

// Time is the wall time the stamp stands for; it may run ahead of the clock that made it.
func (s Stamp) Time() time.Time {
	t := s.Ticks()
	perSec := uint64(time.Second / Unit)
	return time.Unix(epochUTC+int64(t/perSec), int64(t%perSec)*int64(Unit)).UTC()
}

// Version identifies the last real mutation of a record. It is the operation id for dedupe and the
// anti-entropy version; repair, seal and transfer do not change it. Zero: never written.
type Version = Stamp

// Ballot orders proposals for one key (CASPaxos, arXiv 1802.07000): by epoch first, then by stamp.
// The zero Ballot is below every proposal: nothing accepted.
type Ballot struct {
	Epoch uint32
	Stamp Stamp
}

// Compare orders ballots lexicographically.
func (b Ballot) Compare(o Ballot) int {
	if c := cmp.Compare(b.Epoch, o.Epoch); c != 0 {
		return c
	}
	return cmp.Compare(b.Stamp, o.Stamp)
}

// Less reports b < o.
func (b Ballot) Less(o Ballot) bool {
	return b.Epoch < o.Epoch || b.Epoch == o.Epoch && b.Stamp < o.Stamp
}

// IsZero reports that b stands for "nothing accepted".
func (b Ballot) IsZero() bool { return b == Ballot{} }

func (b Ballot) String() string {
	return fmt.Sprintf("%d.%d@%d", b.Epoch, b.Stamp.Ticks(), b.Stamp.Slot())
}
