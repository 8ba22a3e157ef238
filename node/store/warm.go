package store

import "unsafe"

// A look-up waits for memory two or three times, one after the other: for the index, then for the
// entry. Look-ups of several keys can wait together: whoever is about to do them says so, with
// WarmIndex for all of them, then WarmEntry for all of them. Neither waits.

// WarmIndex brings nearer what says where the record of that hash is.
func (s *Store) WarmIndex(hash uint64) {
	sh := s.shard(hash)
	sh.mu.Lock()
	if slots := sh.index.slots; len(slots) > 0 {
		prefetch(unsafe.Pointer(&slots[sh.index.start(hash)]))
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
	prefetchEntry(unsafe.Pointer(entry))
}
