package store

import (
	"bytes"
	"sync"

	"kai/node/record"
	"kai/node/ring"
)

// shards of the overlay's index and of the cache. A power of two; enough that the goroutines of a
// large machine seldom meet, few enough that empty ones cost nothing.
const numShards = 64

// shard is the part of memory that answers for some of the keys.
type shard struct {
	mu sync.Mutex
	// seq counts the writes made visible here. A reader who brings a value from the table may put
	// it in the cache only if seq is what it was before he looked: else the value may be older than
	// one that has come and, meanwhile, gone into the table.
	seq uint64
	// dirty is the index of the overlay: hash to the newest entry that is not yet in the table.
	dirty index[ref]
	// twins holds keys whose hash another key has in dirty. xxhash is no match for someone who
	// wants collisions, so they must cost speed at most.
	twins map[string]ref
	cache cache

	hits, misses int64
}

func newShards(cacheBytes int64) []shard {
	shards := make([]shard, numShards)
	for i := range shards {
		shards[i].twins = map[string]ref{}
		shards[i].cache.init(cacheBytes / numShards)
	}
	return shards
}

// The high bits of the hash make the partition; the low ones, the shard.
func (s *Store) shard(hash uint64) *shard { return &s.shards[hash%numShards] }

func (e *entry) is(o *entry) bool {
	return e.kind == o.kind && e.p == o.p && bytes.Equal(e.key, o.key)
}

// noRef is no entry's: chunk ids run out long before.
const noRef = ^ref(0)

// newest returns the newest entry of want's key in the overlay and its ref, or noRef. The caller
// holds mu; the entry's slices stay valid.
func (sh *shard) newest(w window, want *entry) (entry, ref) {
	if r, ok := sh.dirty.get(want.hash); ok {
		if e := w.at(r); e.is(want) {
			return e, r
		}
	}
	if len(sh.twins) > 0 {
		if r, ok := sh.twins[string(want.tableKey(nil))]; ok {
			return w.at(r), r
		}
	}
	return entry{}, noRef
}

// setDirty makes r, which is e's, the newest of its key. The caller holds mu.
func (sh *shard) setDirty(w window, e *entry, r ref) {
	sh.seq++
	if len(sh.twins) > 0 {
		if _, ok := sh.twins[string(e.tableKey(nil))]; ok {
			sh.twins[string(e.tableKey(nil))] = r
			return
		}
	}
	if have, ok := sh.dirty.get(e.hash); ok {
		if old := w.at(have); !old.is(e) {
			sh.twins[string(e.tableKey(nil))] = r
			return
		}
	}
	sh.dirty.put(e.hash, r)
}

// clearDirty forgets e's key, which is in the table. The caller holds mu.
func (sh *shard) clearDirty(w window, e *entry) {
	if r, ok := sh.dirty.get(e.hash); ok {
		if have := w.at(r); have.is(e) {
			sh.dirty.drop(e.hash)
			return
		}
	}
	delete(sh.twins, string(e.tableKey(nil)))
}

// lookup is what memory knows of a key.
type lookup struct {
	found, known bool
	seq          uint64
}

// peek appends what memory has of want's key to dst.
func (s *Store) peek(dst []byte, want *entry) ([]byte, lookup) {
	sh := s.shard(want.hash)
	sh.mu.Lock()
	// What is cached is in the table, so that most reads need one look-up: see publish.
	if value, present, known := sh.cache.get(want); known {
		dst = append(dst, value...)
		l := lookup{present, true, sh.seq}
		sh.hits++
		sh.mu.Unlock()
		return dst, l
	}
	if e, r := sh.newest(s.window, want); r != noRef {
		seq := sh.seq
		sh.hits++
		sh.mu.Unlock()
		// Chunks are never written again, nor reused: no need to copy under the lock.
		return append(dst, e.value...), lookup{true, true, seq}
	}
	l := lookup{seq: sh.seq}
	sh.misses++
	sh.mu.Unlock()
	return dst, l
}

// Peek is Get from memory only: known=false means that only Get can tell. It neither blocks on the
// disk nor allocates, if dst has room.
func (s *Store) Peek(dst []byte, p ring.Partition, hash uint64, key []byte) (enc []byte, found, known bool, err error) {
	want := entry{kind: kindRecord, p: p, hash: hash, key: key}
	enc, l := s.peek(dst, &want)
	return enc, l.found, l.known, nil
}

// PeekBallot is Peek of the record's ballot only.
func (s *Store) PeekBallot(p ring.Partition, hash uint64, key []byte) (b record.Ballot, found, known bool) {
	want := entry{kind: kindRecord, p: p, hash: hash, key: key}
	sh := s.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	value, found, known := sh.cache.get(&want)
	if found {
		return record.PeekBallot(value), true, true
	}
	if known {
		return record.Ballot{}, false, true
	}
	if e, r := sh.newest(s.window, &want); r != noRef {
		return record.PeekBallot(e.value), true, true
	}
	return record.Ballot{}, false, false
}
