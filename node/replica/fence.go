package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/record"
	"kai/node/ring"
)

// Journal keeps small named values durably, in the same order as the records of Storage.
type Journal interface {
	// Meta returns nil for a name never written.
	Meta(name string) ([]byte, error)
	// PutMeta stages a value; see Storage.Put for done.
	PutMeta(name string, value []byte, done interface{ Committed(error) })
}

const (
	fenceName = "fence"
	// reserveAhead is how far above the clock a reservation reaches: one write covers that long.
	reserveAhead = 2 * time.Second
	// reserveMargin is how long before its end a reservation is renewed, so that nobody waits.
	reserveMargin = time.Second
	// reserveStep is reserved above a stamp that is itself ahead of the clock. It is small, so that
	// a node restarted over and over does not drive the hybrid time away from the clock.
	reserveStep = 50 * time.Millisecond
)

// MaxLead is how far ahead of a node's clock a ballot may be: beyond it the replica answers
// ClockReject, and a coordinator does not follow.
const MaxLead = 10 * time.Second

// Fence is the node's durable upper bound of every promise it gave and of every stamp it issued.
// Promises and the clock live in memory; after a restart every promise is taken to be the fence,
// and stamps start above it. One bound serves all partitions: a promise is (epoch, stamp), the
// epoch of a partition is durable by itself, so the bound of the stamp is enough.
type Fence struct {
	journal Journal
	now     func() time.Time
	boot    uint64 // ticks found on disk at start
	durable atomic.Uint64
	seen    atomic.Uint64  // the highest ticks observed that were ahead of the clock
	lasts   [clocks]newest // a partition's by its number

	mu      sync.Mutex
	staged  uint64
	waiting []fenceWaiter
	err     error
}

// clocks is how many hybrid times a node has. Ballots and versions of different partitions never meet, so each partition may have its own; with one for
// all, a node that writes more than 125,000 stamps a second would leave the clock behind, until its replicas, and it itself, refuse its ballots.
const clocks = 256

// newest is the ticks of the newest stamp issued, on a cache line of its own.
type newest struct {
	atomic.Uint64
	_ [56]byte
}

type fenceWaiter struct {
	ticks uint64
	fn    func(error)
}

// OpenFence reads the fence that the previous run of this data directory left.
func OpenFence(j Journal, now func() time.Time) (*Fence, error) {
	v, err := j.Meta(fenceName)
	if err != nil {
		return nil, fmt.Errorf("replica: read fence: %w", err)
	}
	f := &Fence{journal: j, now: now}
	if v != nil {
		if len(v) != 8 {
			return nil, fmt.Errorf("replica: fence of %d bytes on disk, want 8: %w", len(v), record.ErrCorrupt)
		}
		f.boot = binary.LittleEndian.Uint64(v)
	}
	f.durable.Store(f.boot)
	f.staged = f.boot
	for i := range f.lasts {
		f.lasts[i].Store(f.boot)
	}
	return f, nil
}

// Boot is the bound found at start, in ticks: every promise of earlier runs is at most this.
func (f *Fence) Boot() uint64 { return f.boot }

// Covers reports whether ticks lie under the durable fence, and renews the reservation early
// enough that it nearly always does.
func (f *Fence) Covers(ticks uint64) bool {
	d := f.durable.Load()
	if ticks+ticksOf(reserveMargin) <= d {
		return true // of a stamp of now, the usual case; and the clock need not be read
	}
	if ticks+ticksOf(reserveStep/2) > d || record.Ticks(f.now().Add(reserveMargin)) > d {
		f.mu.Lock()
		f.raise(ticks)
		f.mu.Unlock()
	}
	return ticks <= d
}

// Staged reports whether a reservation that covers ticks is at least on its way, ahead of anything
// put into the store from now on.
func (f *Fence) Staged(ticks uint64) bool {
	if f.Covers(ticks) {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.staged >= ticks
}

// When calls fn once ticks lie under the durable fence, perhaps at once, or with the store's error.
func (f *Fence) When(ticks uint64, fn func(error)) {
	if f.Covers(ticks) {
		fn(nil)
		return
	}
	f.mu.Lock()
	if ticks <= f.durable.Load() {
		f.mu.Unlock()
		fn(nil)
		return
	}
	f.raise(ticks)
	if ticks <= f.durable.Load() { // a store that answered within PutMeta: nobody would wake fn
		f.mu.Unlock()
		fn(nil)
		return
	}
	if f.staged < ticks {
		err := f.err
		f.mu.Unlock()
		if err == nil {
			err = errNoStamp
		}
		fn(err)
		return
	}
	f.waiting = append(f.waiting, fenceWaiter{ticks, fn})
	f.mu.Unlock()
}

// raise stages a higher reservation when ticks is near the end of the staged one. f.mu is held; the
// store may refuse at once, on this goroutine, so the callback takes no lock (see reservation).
func (f *Fence) raise(ticks uint64) {
	now := f.now()
	if max(ticks+ticksOf(reserveStep/2), record.Ticks(now.Add(reserveMargin))) <= f.staged {
		return
	}
	want := max(record.Ticks(now.Add(reserveAhead)), ticks+ticksOf(reserveStep))
	r := &reservation{f: f, ticks: want}
	f.journal.PutMeta(fenceName, binary.LittleEndian.AppendUint64(nil, want), r)
	if r.state.CompareAndSwap(0, resStaged) {
		f.staged = want
		return
	}
	// Answered before PutMeta returned: refused, or a store that commits at once.
	if f.err = r.err; r.err == nil {
		f.staged = want
		f.durable.Store(max(f.durable.Load(), want))
	}
}

const (
	resStaged   = 1
	resAnswered = 2
)

// reservation is one write of the fence on its way.
type reservation struct {
	f     *Fence
	ticks uint64
	state atomic.Int32
	err   error
}

// Committed implements the store's callback.
func (r *reservation) Committed(err error) {
	r.err = err
	if r.state.CompareAndSwap(0, resAnswered) {
		return // raise is still holding the lock and will look
	}
	f := r.f
	f.mu.Lock()
	f.err = err
	if err == nil {
		f.durable.Store(max(f.durable.Load(), r.ticks))
	} else if f.staged == r.ticks {
		f.staged = f.durable.Load()
	}
	var ready []fenceWaiter
	keep := f.waiting[:0]
	for _, w := range f.waiting {
		if w.ticks <= r.ticks {
			ready = append(ready, w)
		} else {
			keep = append(keep, w)
		}
	}
	f.waiting = keep
	f.mu.Unlock()
	for _, w := range ready {
		w.fn(err)
	}
}

// errNoStamp reports that no stamp can be issued because the fence cannot be raised.
var errNoStamp = errors.New("replica: cannot reserve time on disk")

// Next issues a stamp above every stamp issued or observed before for p, on slot. It blocks only when
// the reservation ran out, until the next one is durable.
func (f *Fence) Next(p ring.Partition, slot uint16) (record.Stamp, error) {
	t := f.tick(p)
	if !f.Covers(t) {
		errs := make(chan error, 1)
		f.When(t, func(err error) { errs <- err })
		if err := <-errs; err != nil {
			return 0, fmt.Errorf("%w: %w", errNoStamp, err)
		}
	}
	return record.NewStamp(t, slot), nil
}

// TryNext is Next, or false where that would block.
func (f *Fence) TryNext(p ring.Partition, slot uint16) (record.Stamp, bool) {
	t := f.tick(p)
	return record.NewStamp(t, slot), f.Covers(t)
}

// tick moves the hybrid time of p on.
func (f *Fence) tick(p ring.Partition) uint64 {
	floor := max(record.Ticks(f.now()), f.seen.Load()+1)
	newest := &f.lasts[p%clocks]
	for {
		last := newest.Load()
		t := max(floor, last+1)
		if newest.CompareAndSwap(last, t) {
			return t
		}
	}
}

// Observe moves the hybrid time up to s, unless s is too far ahead of the clock to be followed. All partitions' hybrid times follow what one
// of them has seen: a replica that restarted refuses what lies below its fence for all of them alike.
func (f *Fence) Observe(p ring.Partition, s record.Stamp) {
	t := s.Ticks()
	if t <= f.lasts[p%clocks].Load() || t <= f.seen.Load() {
		return
	}
	if now := f.now(); t <= record.Ticks(now) || t > record.Ticks(now.Add(MaxLead)) {
		return
	}
	for {
		seen := f.seen.Load()
		if t <= seen || f.seen.CompareAndSwap(seen, t) {
			return
		}
	}
}

func ticksOf(d time.Duration) uint64 { return uint64(d / record.Unit) }
