package store

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// A disk without room for records has room for purges, which come to the table although nothing else is
// written; a disk that has still less refuses them too.
func TestFullDiskTakesPurges(t *testing.T) {
	const reserve = 64 << 10
	grow := func(o *Options) {
		o.ReserveBytes = reserve
		o.Disk.(*MemDisk).SetCapacity(200 << 10)
	}
	bubble(t, grow, func(t *testing.T, s *Store, disk *MemDisk, table *MemTable) {
		for i := range 5 {
			put(t, s, fmt.Sprint("key-", i), 1, 0)
		}
		left := func(free int64) {
			disk.mu.Lock()
			used := disk.used
			disk.mu.Unlock()
			disk.SetCapacity(used + free)
			time.Sleep(2 * time.Second)
		}
		left(reserve - 1)
		if err := tryPut(s, "key-0", 2, 0); !errors.Is(err, ErrFull) {
			t.Fatalf("put when full: %v", err)
		}
		purge(t, s, "key-0")
		purge(t, s, "none")
		time.Sleep(5 * time.Second)
		if st := s.Stats(); st.Purges != 2 || s.purgesWait() || st.Applied == 0 {
			t.Fatalf("%d purges; they wait: %v; %d rows applied", st.Purges, s.purgesWait(), st.Applied)
		}
		for i := range 5 {
			key := fmt.Sprint("key-", i)
			p, _ := place([]byte(key))
			_, found, err := table.Get(nil, appendTableKey(nil, p, []byte(key)))
			if err != nil || found != (i > 0) || got(t, s, key) != uint64(min(i, 1)) {
				t.Fatalf("%s: in the table %v, %v; the store has %d", key, found, err, got(t, s, key))
			}
		}
		left(reserve/4*3 - 1)
		if err := tryPurge(s, "key-1"); !errors.Is(err, ErrFull) {
			t.Fatalf("purge when scarce: %v", err)
		}
		if got(t, s, "key-1") != 1 {
			t.Fatal("a refused purge did something")
		}
		left(2 * reserve)
		purge(t, s, "key-1")
		put(t, s, "key-0", 3, 0)
		if got(t, s, "key-1") != 0 || got(t, s, "key-0") != 3 {
			t.Fatal("after space is back")
		}
	})
}

// Once a purge is in the table, the store's memory has nothing of the key.
func TestPurgeLeavesNothingInMemory(t *testing.T) {
	backends(t, func(t *testing.T, opts Options) {
		s, stop := running(t, opts)
		const keys = 200
		name := func(i int) string { return fmt.Sprint("key-", i) }
		for i := range keys {
			put(t, s, name(i), 1, 50)
		}
		stop() // into the table
		if opts.Dir != "" {
			opts.Disk, opts.Table = nil, nil
		}
		s, stop = running(t, opts)
		for i := range keys {
			if got(t, s, name(i)) != 1 {
				t.Fatal("lost")
			}
			purge(t, s, name(i))
		}
		for i := 0; s.purgesWait(); i++ {
			put(t, s, "fill", uint64(i+1), 900)
		}
		for i := range keys {
			p, h := place([]byte(name(i)))
			if _, found, known, _ := s.Peek(nil, p, h, []byte(name(i))); found || known {
				t.Fatalf("%s: found %v, known %v", name(i), found, known)
			}
			if _, found, known := s.PeekBallot(p, h, []byte(name(i))); found || known {
				t.Fatalf("%s: ballot found %v, known %v", name(i), found, known)
			}
		}
		for i := range s.shards {
			// One for "fill" in its shard, and it may have been cached besides.
			if sh := &s.shards[i]; sh.index.len() > 1 || len(sh.twins) > 0 {
				t.Fatalf("shard %d: %d in the index, %d twins", i, sh.index.len(), len(sh.twins))
			}
		}
		for i := range keys {
			if n := got(t, s, name(i)); n != 0 {
				t.Fatalf("%s is %d", name(i), n)
			}
		}
		stop()
	})
}
