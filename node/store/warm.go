package store

import (
	"unsafe"

	"kai/node/prefetch"
)

// A look-up waits for memory two or three times, one after the other: for the index, then for the
// entry. Look-ups of several keys can wait together: whoever is about to do them says so, with
// WarmIndex for all of them, then WarmEntry for all of them. Neither waits.

// WarmIndex brings nearer what says where the record of that hash is.
func (s *Store) WarmIndex(hash uint64) {
	sh := s.shard(hash)
	sh.mu.Lock()
	if slots := sh.index.slots; len(slots) > 0 {
		prefetch.Line(unsafe.Pointer(&slots[sh.index.start(hash)]))
	}
	sh.mu.Unlock()
}

// WarmEntry brings nearer the record of that hash, if it is in memory.
func (s *Store) WarmEntry(hash uint64) {
	sh := s.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	at, ok := sh.index.get(hash)
	if !ok {
		return
	}
	var entry *byte
	if at&inOverlay != 0 {
		r := ref(at &^ inOverlay)
		entry = &s.window.slot(r.chunk()).Load().buf[uint32(r)]
	} else {
		entry = &sh.cache.bytes(at)[0]
	}
	prefetch.Lines(unsafe.Pointer(entry))
}

// warmItems is how many items are warmed together: some kilobytes, which the nearest cache holds.
const warmItems = 16

// Warmer is a Completion that can bring nearer what Committed will touch.
type Warmer interface{ Warm() }

// warm brings nearer what publishing items touches: it was staged a sync ago, and is in no near cache any more.
func (s *Store) warm(items []item) {
	if len(items) < 2 {
		return
	}
	for i := range items {
		it := &items[i]
		prefetch.Line(dataOf(it.done))
		prefetch.Line(unsafe.Pointer(&s.window.slot(it.ref.chunk()).Load().buf[uint32(it.ref)]))
		s.WarmIndex(it.hash)
	}
	for i := range items {
		it := &items[i]
		if w, ok := it.done.(Warmer); ok {
			w.Warm()
		}
		sh := s.shard(it.hash)
		sh.mu.Lock()
		if at, ok := sh.index.get(it.hash); ok && at&inOverlay != 0 {
			r := ref(at &^ inOverlay)
			prefetch.Line(unsafe.Pointer(&s.window.slot(r.chunk()).Load().buf[uint32(r)]))
		}
		sh.mu.Unlock()
	}
}

// dataOf is where the value behind an interface is, if it is a pointer.
func dataOf(x Completion) unsafe.Pointer { return (*[2]unsafe.Pointer)(unsafe.Pointer(&x))[1] }
