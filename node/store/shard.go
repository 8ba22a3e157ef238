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
	// index has, for a hash, the place of what is newest in memory: an entry of the overlay, or what
	// is cached of the table.
	index index[where]
	// twins holds keys of the overlay whose hash another key of it has in index. xxhash is no match
	// for someone who wants collisions, so they must cost speed at most.
	twins map[string]ref
	cache cache

	hits, misses int64
}

// where is a ref with inOverlay set, or a place in the cache.
type where uint64

const inOverlay where = 1 << 63 // chunk ids run out long before

func newShards(cacheBytes int64, memory *arena) []shard {
	shards := make([]shard, numShards)
	for i := range shards {
		sh := &shards[i]
		sh.twins = map[string]ref{}
		sh.cache.init(&sh.index, memory, cacheBytes/numShards)
	}
	return shards
}

// The high bits of the hash make the partition; the low ones, the shard.
func (s *Store) shard(hash uint64) *shard { return &s.shards[hash%numShards] }

// is reports whether both speak of the same key of records, or of the same name of metas. Indexes hold
// no other kinds.
func (e *entry) is(o *entry) bool {
	return (e.kind == kindMeta) == (o.kind == kindMeta) && e.p == o.p && bytes.Equal(e.key, o.key)
}

// noRef is no entry's: chunk ids run out long before.
const noRef = ^ref(0)

// newest returns the newest entry of want's key in the overlay and its ref, or noRef. The caller
// holds mu; the entry's slices stay valid as long as that, or as the chunk is held.
func (sh *shard) newest(w window, want *entry) (entry, ref) {
	at, ok := sh.index.get(want.hash)
	return sh.newestAt(w, want, at, ok)
}

// newestAt is newest for who has looked into the index.
func (sh *shard) newestAt(w window, want *entry, at where, ok bool) (entry, ref) {
	if ok && at&inOverlay != 0 {
		r := ref(at &^ inOverlay)
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

// newestRef is newest for e, an entry of the overlay itself. The caller holds mu.
func (sh *shard) newestRef(w window, e *entry) ref {
	if len(sh.twins) > 0 {
		_, r := sh.newest(w, e)
		return r
	}
	// No two keys of the overlay have one hash, so what is there is e's key: spare the look at it.
	if at, ok := sh.index.get(e.hash); ok && at&inOverlay != 0 {
		return ref(at &^ inOverlay)
	}
	return noRef
}

// setDirty makes r, which is e's, the newest of its key, in the place of what is cached. The caller
// holds mu.
func (sh *shard) setDirty(w window, e *entry, r ref) {
	sh.seq++
	if len(sh.twins) > 0 {
		if _, ok := sh.twins[string(e.tableKey(nil))]; ok {
			sh.twins[string(e.tableKey(nil))] = r
			return
		}
	}
	if have, ok := sh.index.get(e.hash); ok && have&inOverlay != 0 {
		if old := w.at(ref(have &^ inOverlay)); !old.is(e) {
			sh.twins[string(e.tableKey(nil))] = r
			return
		}
	}
	sh.index.put(e.hash, where(r)|inOverlay)
}

// settle takes e, whose ref is r and which is in the table by now, out of the overlay and, if it is a
// record and the newest of its key, into the cache. Of a purged key nothing stays: who asks for one
// has the table tell. The caller holds mu.
func (sh *shard) settle(e *entry, r ref) {
	if at, ok := sh.index.get(e.hash); ok && at == where(r)|inOverlay {
		if e.kind != kindRecord || !sh.cache.put(e, true) {
			sh.index.drop(e.hash)
		}
	} else if len(sh.twins) > 0 {
		k := string(e.tableKey(nil))
		if have, ok := sh.twins[k]; ok && have == r {
			delete(sh.twins, k)
		}
	}
}

// keep puts what the table says of e into the cache. The caller holds mu.
func (sh *shard) keep(e *entry, present bool) {
	at, ok := sh.index.get(e.hash)
	if ok && at&inOverlay != 0 {
		return // another key's
	}
	if !sh.cache.put(e, present) && ok {
		sh.index.drop(e.hash)
	}
}

// lookup is what memory knows of a key.
type lookup struct {
	found, known bool
	seq          uint64
}

// copyLocked is the longest value of the overlay that is copied under the shard's lock; a longer one
// is worth a reference to its chunk.
const copyLocked = 4 << 10

// peek appends what memory has of want's key to dst.
func (s *Store) peek(dst []byte, want *entry) ([]byte, lookup) {
	sh := s.shard(want.hash)
	sh.mu.Lock()
	at, ok := sh.index.get(want.hash)
	if ok && at&inOverlay == 0 {
		if value, present, known := sh.cache.at(at, want); known {
			dst = append(dst, value...)
			l := lookup{present, true, sh.seq}
			sh.hits++
			sh.mu.Unlock()
			return dst, l
		}
	}
	if e, r := sh.newestAt(s.window, want, at, ok); r != noRef {
		l := lookup{e.kind != kindPurge, true, sh.seq}
		sh.hits++
		if len(e.value) <= copyLocked {
			dst = append(dst, e.value...)
			sh.mu.Unlock()
			return dst, l
		}
		c := s.window.slot(r.chunk()).Load().hold()
		sh.mu.Unlock()
		dst = append(dst, e.value...)
		c.release()
		return dst, l
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
	at, ok := sh.index.get(hash)
	if ok && at&inOverlay == 0 {
		if value, found, known := sh.cache.at(at, &want); found {
			return record.PeekBallot(value), true, true
		} else if known {
			return record.Ballot{}, false, true
		}
	}
	if e, r := sh.newestAt(s.window, &want, at, ok); r != noRef {
		if e.kind == kindPurge {
			return record.Ballot{}, false, true
		}
		return record.PeekBallot(e.value), true, true
	}
	return record.Ballot{}, false, false
}
