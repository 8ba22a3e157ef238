package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

func cacheEntry(key string, value []byte) *entry {
	p, h := place([]byte(key))
	return &entry{kind: kindRecord, p: p, hash: h, key: []byte(key), value: value}
}

// alone is a cache with an index of its own.
type alone struct {
	cache
	index index[where]
}

func newAlone(size int64) *alone {
	c := &alone{}
	c.init(&c.index, newArena(0), size)
	return c
}

func (c *alone) get(want *entry) (value []byte, found, known bool) {
	at, ok := c.index.get(want.hash)
	if !ok {
		return nil, false, false
	}
	return c.at(at, want)
}

func (c *alone) put(e *entry, present bool) {
	if !c.cache.put(e, present) {
		c.index.drop(e.hash)
	}
}

// Whatever the cache says is what it was told last; and it stays within its bounds.
func TestCacheAgainstAMap(t *testing.T) {
	for _, size := range []int64{0, 1 << 10, 4 << 10, 64 << 10, 1 << 20} {
		rng := rand.New(rand.NewPCG(uint64(size), 1))
		c := newAlone(size)
		told := map[string][]byte{}
		hits := 0
		for range 20000 {
			key := fmt.Sprintf("key-%d", rng.IntN(300))
			if rng.IntN(2) == 0 {
				value := bytes.Repeat([]byte{byte(rng.IntN(256))}, rng.IntN(1+rng.IntN(600)))
				present := rng.IntN(8) > 0
				if !present {
					value = nil
				}
				c.put(cacheEntry(key, value), present)
				told[key] = value
				continue
			}
			value, found, known := c.get(cacheEntry(key, nil))
			if !known {
				continue
			}
			hits++
			if found != (told[key] != nil) || !bytes.Equal(value, told[key]) {
				t.Fatalf("size %d: %s is %d bytes, %v; want %d", size, key, len(value), found, len(told[key]))
			}
		}
		var used int64
		for _, b := range c.blocks {
			used += int64(len(b))
		}
		if used > size || c.block > 0 && hits == 0 {
			t.Errorf("size %d: uses %d, %d hits", size, used, hits)
		}
	}
}

// What is read stays longer than what is not.
func TestCacheSecondChance(t *testing.T) {
	c := newAlone(16 << 10)
	c.put(cacheEntry("hot", make([]byte, 100)), true)
	for i := range 1000 {
		c.put(cacheEntry(fmt.Sprint(i), make([]byte, 100)), true)
		if _, _, known := c.get(cacheEntry("hot", nil)); !known {
			t.Fatalf("pushed out after %d", i)
		}
	}
	if _, _, known := c.get(cacheEntry("0", nil)); known {
		t.Fatal("the cold one is still there")
	}
}

// gatedTable lets a test act between the moment the table has read a value and its return.
type gatedTable struct {
	Table
	after func()
}

func (g *gatedTable) Get(dst, key []byte) ([]byte, bool, error) {
	v, found, err := g.Table.Get(dst, key)
	if f := g.after; f != nil && key[0] == spaceRecord {
		g.after = nil
		f()
	}
	return v, found, err
}

// The race: a reader has an old value from the table; a write commits and goes all the way into the
// table and the cache; now the reader would put the old value into the cache.
func TestCacheDoesNotGoBack(t *testing.T) {
	for _, c := range []struct{ absent, purged bool }{{false, false}, {true, false}, {false, true}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			table := &gatedTable{Table: NewMemTable()}
			opts := small(Options{Disk: NewMemDisk(MemDiskOptions{}), Table: table, CacheBytes: 4 << 20})
			s, stop := running(t, opts)
			if !c.absent {
				put(t, s, "key", 1, 0)
			}
			stop()
			s, _ = running(t, opts)
			table.after = func() {
				if c.purged {
					purge(t, s, "key")
				} else {
					put(t, s, "key", 2, 0)
				}
				// Other shards' keys, so that nothing else is counted in this one.
				for i := 0; s.Stats().Applied == 0 || s.purgesWait(); i++ {
					fill := fmt.Sprint("fill-", i)
					if _, h := place([]byte(fill)); s.shard(h) != s.shard(cacheEntry("key", nil).hash) {
						put(t, s, fill, 1, 900)
					}
				}
				// The cache may have let it go again; then nothing masks the old value.
				sh := s.shard(cacheEntry("key", nil).hash)
				sh.mu.Lock()
				if sh.cache.block != 0 {
					sh.index.drop(cacheEntry("key", nil).hash)
				}
				sh.mu.Unlock()
			}
			got(t, s, "key") // old or new: both were current
			if table.after != nil {
				t.Fatal("the reader did not go to the table")
			}
			want := uint64(2)
			if c.purged {
				want = 0
			}
			if n := got(t, s, "key"); n != want {
				t.Fatalf("the cache went back to %d", n)
			}
		})
	}
}

func TestHashCollisions(t *testing.T) {
	opts := small(Options{Disk: NewMemDisk(MemDiskOptions{}), Table: NewMemTable(), CacheBytes: 1 << 20})
	s, _ := running(t, opts)
	want := map[string]uint64{} // 0: purged
	for round := range 80 {
		for i := range 5 {
			key := fmt.Appendf(nil, "twin-%d", i)
			n := uint64(round*5 + i + 1)
			w := make(waiter, 1)
			if n%7 == 3 {
				s.Purge(3, 42, key, w)
			} else {
				s.Put(3, 42, key, counted(key, n, 200), w)
			}
			if err := <-w; err != nil {
				continue // busy
			}
			if want[string(key)] = n; n%7 == 3 {
				want[string(key)] = 0
			}
			for key, n := range want {
				twinIs(t, s, []byte(key), n)
			}
		}
	}
}

func twinIs(t *testing.T, s *Store, key []byte, n uint64) {
	t.Helper()
	if b, found, known := s.PeekBallot(3, 42, key); known && (found != (n > 0) || uint64(b.Stamp) != n) {
		t.Fatalf("%s: %v, %v, want %d", key, b, found, n)
	}
	enc, found, err := s.Get(nil, 3, 42, key)
	if err != nil || found != (n > 0) || found && !bytes.Equal(enc, counted(key, n, 200)) {
		t.Fatalf("%s: %v, %v, want %d", key, found, err, n)
	}
}

func TestAbsenceIsCached(t *testing.T) {
	opts := small(Options{Disk: NewMemDisk(MemDiskOptions{}), Table: NewMemTable(), CacheBytes: 1 << 20})
	s, _ := running(t, opts)
	p, h := place([]byte("none"))
	if _, _, known, _ := s.Peek(nil, p, h, []byte("none")); known {
		t.Fatal("known before anyone looked")
	}
	if got(t, s, "none") != 0 {
		t.Fatal("found")
	}
	if _, found, known, _ := s.Peek(nil, p, h, []byte("none")); found || !known {
		t.Fatalf("found %v, known %v", found, known)
	}
	put(t, s, "none", 1, 0)
	if _, found, known, _ := s.Peek(nil, p, h, []byte("none")); !found || !known {
		t.Fatalf("found %v, known %v", found, known)
	}
	purge(t, s, "none")
	if _, found, known, _ := s.Peek(nil, p, h, []byte("none")); found || !known {
		t.Fatalf("purged: found %v, known %v", found, known)
	}
}
