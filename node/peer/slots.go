package peer

import (
	"sync/atomic"

	"kai/node/message"
)

const (
	slotBits = 16
	maxSlots = 1 << slotBits
	chunkLen = 256
)

// slot holds what one call leaves behind until its reply comes, no more than a cache line. Its fields
// are written under the table's lock, by who took it, before id is stored; they belong to who sets id
// back to 0.
type slot struct {
	id       atomic.Uint64 // 0: nobody waits here
	done     message.Completion
	index    int
	at       uint64 // where in the stream the frame begins
	deadline int64
	key      *[]byte // a copy, since a record in the reply is verified by it and the request's own may be gone then
	keyed    bool    // the reply may bring a record
}

// remember fills the slot for call.
func (s *slot) remember(call *message.Call, at uint64, deadline int64) {
	s.done, s.index, s.at, s.deadline = call.Completion, call.Index, at, deadline
	if s.keyed = call.Kind == message.Read || call.Kind == message.Prepare; !s.keyed {
		return
	}
	if s.key == nil {
		s.key = new([]byte)
	}
	*s.key = append((*s.key)[:0], call.Key...)
}

// asked is the key that a record in the reply must have; nil: it brings none.
func (s *slot) asked() []byte {
	if !s.keyed {
		return nil
	}
	return *s.key
}

// claimed moves who waits in the slot, which the caller has claimed, to call, for the answer.
func (s *slot) claimed(call *message.Call) {
	call.Completion, call.Index = s.done, s.index
	s.done = nil
}

// slots is the table of pending calls. An id is a serial number and the index of its slot, so a
// reply finds its call without a map and without the lock, and a late one finds another id there.
// Exactly-once: of all who might answer (reply, deadline, disconnect), only the one whose
// compare-and-swap empties the slot does.
type slots struct {
	chunks [maxSlots / chunkLen]atomic.Pointer[[chunkLen]slot]
	free   []uint16 // last in, first out: few slots are in use, and those are in the cache
	used   int      // slots ever taken
	serial uint64
}

func (t *slots) at(i int) *slot { return &t.chunks[i/chunkLen].Load()[i%chunkLen] }

// pending counts the slots taken and not given back. The lock is held.
func (t *slots) pending() int { return t.used - len(t.free) }

// take finds a slot and an id for it, which the caller stores; nil when limit slots are taken. The
// lock is held.
func (t *slots) take(limit int) (*slot, uint64) {
	var i int
	switch n := len(t.free); {
	case t.pending() >= min(limit, maxSlots):
		return nil, 0
	case n > 0:
		i = int(t.free[n-1])
		t.free = t.free[:n-1]
	default:
		if i = t.used; i%chunkLen == 0 {
			t.chunks[i/chunkLen].Store(new([chunkLen]slot))
		}
		t.used++
	}
	t.serial++
	return t.at(i), t.serial<<slotBits | uint64(i)
}

// untake undoes take. The lock is held.
func (t *slots) untake(id uint64) { t.free = append(t.free, uint16(id)) }

// claim returns the slot of id if nobody else did. The caller answers the call, then gives the slot
// back with untake. No lock is needed.
func (t *slots) claim(id uint64) *slot {
	chunk := t.chunks[uint16(id)/chunkLen].Load()
	if chunk == nil {
		return nil
	}
	s := &chunk[id%chunkLen]
	if id == 0 || !s.id.CompareAndSwap(id, 0) {
		return nil
	}
	return s
}

// overdue appends the ids of calls whose deadline is before now. The lock is held, so no slot
// changes hands for a new call meanwhile.
func (t *slots) overdue(ids []uint64, now int64) []uint64 {
	for i := range t.used {
		s := t.at(i)
		if id := s.id.Load(); id != 0 && s.deadline < now {
			ids = append(ids, id)
		}
	}
	return ids
}
