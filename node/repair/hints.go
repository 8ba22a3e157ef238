package repair

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"kai/node/flight"
	"kai/node/ring"
)

const (
	// MaxHints and MaxHintBytes are bounds for a node: of hints in all, and of the memory they take.
	MaxHints     = 65_536
	MaxHintBytes = 10 << 20
	// hintBytes is what a hint takes beside its key.
	hintBytes = 96
)

// Hints remembers which keys which peers missed: keys, not values, because what a peer needs when it is back is
// the newest state. They are in memory only. One peer gets at most half of the room, so that one that is
// dead does not take it from all others; a hint for which there is no room is dropped, and anti-entropy finds what it
// stood for. It meets quorum.Hinter. Its methods are safe for concurrent use.
type Hints struct {
	maxKeys, maxBytes int
	wake              chan struct{} // capacity 1
	counters          HintCounters

	mu    sync.Mutex
	peers map[ring.NodeID]*missed // those with hints
	all   room
}

// HintCounters count hints since start.
type HintCounters struct {
	// Added hints, Dropped ones for which there was no room, those HandedOff, and those Forgotten because they
	// came to nothing: the peer or this node is no replica of the key any more.
	Added, Dropped, HandedOff, Forgotten atomic.Uint64
}

// missed is one peer's hints.
type missed struct {
	keys map[string]missing
	room
}

// room is what hints take.
type room struct{ keys, bytes int }

func (r *room) add(key string, sign int) {
	r.keys, r.bytes = r.keys+sign, r.bytes+sign*(hintBytes+len(key))
}

// missing is where a key lies, and the write that a peer missed.
type missing struct {
	p  ring.Partition
	by flight.Context // zero: nobody keeps it
}

// hint is one key that a peer missed.
type hint struct {
	missing
	key string
}

// NewHints makes room for so many hints, of so many bytes.
func NewHints(maxKeys, maxBytes int) *Hints {
	return &Hints{maxKeys: maxKeys, maxBytes: maxBytes, wake: make(chan struct{}, 1), peers: map[ring.NodeID]*missed{}}
}

// Missed keeps a hint, unless the same is there already. by is the write's context, or zero. It copies key, and does not block.
func (h *Hints) Missed(p ring.Partition, peer ring.NodeID, key []byte, by flight.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.peers[peer]; m != nil {
		if _, ok := m.keys[string(key)]; ok {
			return
		}
	}
	if h.add(peer, hint{missing{p, by}, string(key)}) {
		h.counters.Added.Add(1)
	}
}

// add keeps a hint if there is room. h.mu is held.
func (h *Hints) add(peer ring.NodeID, x hint) bool {
	m := h.peers[peer]
	if m == nil {
		m = &missed{keys: map[string]missing{}}
	}
	all, own := h.all, m.room
	all.add(x.key, 1)
	own.add(x.key, 1)
	if all.keys > h.maxKeys || all.bytes > h.maxBytes || own.keys > h.maxKeys/2 || own.bytes > h.maxBytes/2 {
		h.counters.Dropped.Add(1)
		return false
	}
	h.peers[peer], h.all, m.room = m, all, own
	m.keys[x.key] = x.missing
	return true
}

// Wake has the hints looked at, because a peer may be back. It does not block.
func (h *Hints) Wake() { poke(h.wake) }

// Waiting is how many hints there are.
func (h *Hints) Waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all.keys
}

// Each calls fn with the peers that have missed something, and how many keys.
func (h *Hints) Each(fn func(peer ring.NodeID, keys int)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, m := range h.peers {
		fn(id, m.room.keys)
	}
}

// Counters returns the counters.
func (h *Hints) Counters() *HintCounters { return &h.counters }

// waiting lists the peers that have hints.
func (h *Hints) waiting() []ring.NodeID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.peers))
}

// list is a peer's hints of now, by partition: neighbours in the store.
func (h *Hints) list(peer ring.NodeID) []hint {
	h.mu.Lock()
	var all []hint
	if m := h.peers[peer]; m != nil {
		all = make([]hint, 0, len(m.keys))
		for key, of := range m.keys {
			all = append(all, hint{of, key})
		}
	}
	h.mu.Unlock()
	slices.SortFunc(all, func(a, b hint) int { return cmp.Or(cmp.Compare(a.p, b.p), cmp.Compare(a.key, b.key)) })
	return all
}

// take removes a hint: whoever hands it off takes it out first, and puts it back if that fails. Were it there
// meanwhile, a second write that the peer misses would add nothing, and then the hint would go.
func (h *Hints) take(peer ring.NodeID, x hint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.peers[peer]
	if m == nil {
		return
	}
	if _, ok := m.keys[x.key]; !ok {
		return
	}
	delete(m.keys, x.key)
	m.add(x.key, -1)
	h.all.add(x.key, -1)
	if len(m.keys) == 0 {
		delete(h.peers, peer)
	}
}

// putBack undoes take, if there is room.
func (h *Hints) putBack(peer ring.NodeID, x hint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.peers[peer]; m != nil {
		if _, ok := m.keys[x.key]; ok {
			return
		}
	}
	h.add(peer, x)
}

// forget drops all hints of a peer that nobody needs any more.
func (h *Hints) forget(peer ring.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.peers[peer]; m != nil {
		h.all.keys, h.all.bytes = h.all.keys-m.room.keys, h.all.bytes-m.room.bytes
		h.counters.Forgotten.Add(uint64(len(m.keys)))
		delete(h.peers, peer)
	}
}
