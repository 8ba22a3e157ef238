package replica

import (
	"sync"

	"kai/node/message"
	"kai/node/record"
)

const stripes = 256

// stripe guards the keys whose hash has its number as low byte, their promises and the writes that the store has
// not yet made durable. It is a cache line, with room for one such key; it seldom has more, and those are in a map.
type stripe struct {
	mu    sync.Mutex
	more  map[uint64]*pending
	hash  uint64 // of first, if that has writes
	first pending
	_     [8]byte
}

// pending is a key with writes staged and not yet durable. Keys with equal hashes share it, which
// only makes them wait for each other.
type pending struct {
	newest  record.Ballot
	writes  int
	waiting *[]*message.Call // nil for none
}

func (r *Replica) stripe(hash uint64) *stripe { return &r.stripes[hash%stripes] }

// pending is what is pending of hash, or nil.
func (st *stripe) pending(hash uint64) *pending {
	if st.hash == hash && st.first.writes > 0 {
		return &st.first
	}
	return st.more[hash]
}

// staged notes a write of hash at b.
func (st *stripe) staged(hash uint64, b record.Ballot) {
	p := st.pending(hash)
	switch {
	case p != nil:
	case st.first.writes == 0:
		st.hash, p = hash, &st.first
	default:
		if st.more == nil {
			st.more = map[uint64]*pending{}
		}
		p = &pending{}
		st.more[hash] = p
	}
	p.newest = b
	p.writes++
}

// ended notes that a write of hash is durable, or has failed. If it was the last of the key, it returns who waited for that.
func (st *stripe) ended(hash uint64) []*message.Call {
	p := st.pending(hash)
	if p.writes--; p.writes > 0 {
		return nil
	}
	waiting := p.waiting
	if p == &st.first {
		*p = pending{}
	} else {
		delete(st.more, hash)
	}
	if waiting == nil {
		return nil
	}
	return *waiting
}

// maxParked bounds the calls that wait for one key's staged writes; each keeps a copy of its record.
const maxParked = 1024

// park has call wait until the key's staged writes are durable: a promise must tell the state that will be found
// on disk, and a duplicate may be acknowledged only with the original. False: too many wait already.
func (p *pending) park(call *message.Call) bool {
	if p.waiting == nil {
		p.waiting = new([]*message.Call)
	}
	if len(*p.waiting) >= maxParked {
		return false
	}
	*p.waiting = append(*p.waiting, call.Keep())
	return true
}
