package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"kai/node/record"
	"kai/node/ring"
)

// track is how far the only writer of a key has come: its writes are numbered, some are purges.
type track struct {
	sync.Mutex
	begun, acked uint64
}

func isPurge(n uint64) bool { return n/10%3 == 2 }

// allows reports whether a reader who began when least was acknowledged may see n; 0: no record.
func (k *track) allows(n, least uint64) bool {
	k.Lock()
	defer k.Unlock()
	if n != 0 {
		return n >= least && n <= k.begun && !isPurge(n)
	}
	for m := k.begun; m >= least && m > 0; m -= min(m, 10) {
		if isPurge(m) {
			return true
		}
	}
	return least == 0
}

// Writers, readers and scanners at once, with an overlay so small that all is always in motion:
// nobody ever sees a key go back behind what was acknowledged.
func TestConcurrentUse(t *testing.T) {
	backends(t, func(t *testing.T, opts Options) {
		s, _ := running(t, opts)
		const writers, writes = 8, 250
		var tracks [writers][10]track
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for n := uint64(1); n <= writes; n++ {
					key, k := fmt.Sprintf("key-%d-%d", w, n%10), &tracks[w][n%10]
					k.Lock()
					k.begun = n
					k.Unlock()
					if isPurge(n) {
						purge(t, s, key)
					} else {
						put(t, s, key, n, int(n*37%900))
					}
					k.Lock()
					k.acked = n
					k.Unlock()
				}
			})
		}
		done := make(chan struct{})
		var readers sync.WaitGroup
		check := func(w, i int, read func() uint64) {
			k := &tracks[w][i]
			k.Lock()
			least := k.acked
			k.Unlock()
			if n := read(); !k.allows(n, least) {
				t.Errorf("key-%d-%d is %d, acknowledged %d", w, i, n, least)
			}
		}
		loop := func(step func(rng *rand.Rand)) {
			readers.Go(func() {
				rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for {
					select {
					case <-done:
						return
					default:
						step(rng)
					}
				}
			})
		}
		for range 2 {
			loop(func(rng *rand.Rand) {
				w, i := rng.IntN(writers), rng.IntN(10)
				check(w, i, func() uint64 { return got(t, s, fmt.Sprintf("key-%d-%d", w, i)) })
			})
		}
		loop(func(rng *rand.Rand) {
			w, i := rng.IntN(writers), rng.IntN(10)
			key := fmt.Appendf(nil, "key-%d-%d", w, i)
			check(w, i, func() uint64 { return scanned(t, s, key) })
		})
		wg.Wait()
		close(done)
		readers.Wait()
		for w := range writers {
			for i := range 10 {
				check(w, i, func() uint64 { return got(t, s, fmt.Sprintf("key-%d-%d", w, i)) })
			}
		}
	})
}

// scanned finds key by scanning its partition.
func scanned(t *testing.T, s *Store, want []byte) (n uint64) {
	p, _ := place(want)
	var last []byte
	err := s.Scan(p, nil, func(key, enc []byte) error {
		if last != nil && bytes.Compare(last, key) >= 0 {
			return fmt.Errorf("%q after %q", key, last)
		}
		last = append(last[:0], key...)
		if err := record.Check(key, enc); err != nil {
			return err
		}
		if bytes.Equal(key, want) {
			n = uint64(record.PeekBallot(enc).Stamp)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return n
}

// Scans tell the same as gets, whether a record is in the overlay, the table or both.
func TestScanMatchesGet(t *testing.T) {
	backends(t, func(t *testing.T, opts Options) {
		s, _ := running(t, opts)
		want := map[string]uint64{}
		for n := range uint64(400) {
			key := "key-" + strconv.Itoa(int(n*13%90))
			if n%5 == 4 {
				purge(t, s, key)
				delete(want, key)
			} else {
				put(t, s, key, n+1, int(n%500))
				want[key] = n + 1
			}
			if n%50 != 0 {
				continue
			}
			if n > 0 { // one that has been in the table for a while, another that has not come there
				for _, m := range []uint64{n - 47, n - 1} {
					key := "key-" + strconv.Itoa(int(m*13%90))
					purge(t, s, key)
					delete(want, key)
				}
			}
			have := map[string]uint64{}
			for p := range ring.Partition(testPartitions) {
				err := s.Scan(p, nil, func(key, enc []byte) error {
					if at, _ := place(key); at != p {
						return fmt.Errorf("%s of partition %d", key, at)
					}
					have[string(key)] = uint64(record.PeekBallot(enc).Stamp)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if fmt.Sprint(have) != fmt.Sprint(want) {
				t.Fatalf("after %d: scans find %v, want %v", n, have, want)
			}
		}
		stop := errors.New("stop")
		for p := range ring.Partition(testPartitions) {
			if err := s.Scan(p, nil, func(_, _ []byte) error { return stop }); !errors.Is(err, stop) {
				t.Fatalf("partition %d: %v", p, err)
			}
		}
	})
}

func TestMemoryReadsDoNotAllocate(t *testing.T) {
	opts := small(Options{Disk: NewMemDisk(MemDiskOptions{}), Table: NewMemTable(), CacheBytes: 1 << 20})
	s, stop := running(t, opts)
	put(t, s, "cached", 1, 100)
	stop()
	s, _ = running(t, opts)
	got(t, s, "cached")
	got(t, s, "absent")
	put(t, s, "overlay", 2, 100)
	purge(t, s, "purged")
	buf := make([]byte, 0, 4096)
	for _, name := range []string{"cached", "absent", "overlay", "purged"} {
		key := []byte(name)
		p, h := place(key)
		allocs := testing.AllocsPerRun(100, func() {
			if _, _, known, _ := s.Peek(buf, p, h, key); !known {
				t.Errorf("%s: not known", name)
			}
			s.PeekBallot(p, h, key)
			if _, _, err := s.Get(buf, p, h, key); err != nil {
				t.Error(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

// Records that Badger keeps in pieces are never seen in the middle of being written.
func TestLargeRecords(t *testing.T) {
	opts := small(Options{Dir: t.TempDir()})
	opts.MaxRecordBytes, opts.OverlayBytes = 400<<10, 1<<20
	opts.SegmentBytes = 0
	s, stop := running(t, opts)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					got(t, s, "large")
				}
			}
		})
	}
	sizes := []int{300 << 10, 10, 60 << 10, 390 << 10}
	for n := range uint64(60) {
		if n%6 == 5 {
			purge(t, s, "large")
		}
		put(t, s, "large", n+1, sizes[n%4])
		put(t, s, "other", n+1, 100<<10)
	}
	close(done)
	readers.Wait()
	stop()
	s, _ = running(t, opts)
	if n := got(t, s, "large"); n != 60 {
		t.Fatalf("after a restart: %d", n)
	}
}

// However much is written, the log keeps no more than the overlay needs.
func TestLogIsFreed(t *testing.T) {
	disk := NewMemDisk(MemDiskOptions{})
	opts := small(Options{Disk: disk, Table: NewMemTable()})
	s, _ := running(t, opts)
	for n := range uint64(2000) {
		put(t, s, fmt.Sprint("key-", n%50), n+1, 500)
		limit := opts.OverlayBytes*2/opts.SegmentBytes + 4
		if have := s.Stats().Segments; have > limit {
			t.Fatalf("%d segments after %d writes", have, n)
		}
	}
	names, err := disk.List()
	if err != nil || len(names) > 12 {
		t.Fatalf("files %v, %v", names, err)
	}
}
