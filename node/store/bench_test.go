package store

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"kai/node/ring"
)

func benchKeys(n int) [][]byte {
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key-%012d", i)
	}
	return keys
}

// fill writes a record of 100 bytes for each key.
func fill(b *testing.B, s *Store, keys [][]byte) {
	b.Helper()
	const flying = 1000
	done := make(waiter, flying)
	for range flying {
		done <- nil
	}
	for i, key := range keys {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		p, h := place(key)
		s.Put(p, h, key, counted(key, uint64(i+1), 100), done)
	}
	for range flying {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPeek(b *testing.B) {
	for _, where := range []string{"overlay", "cache", "miss"} {
		b.Run(where, func(b *testing.B) {
			keys := benchKeys(100_000)
			if where == "overlay" {
				keys = keys[:10_000] // fewer than make the applier move
			}
			opts := Options{Dir: b.TempDir(), CacheBytes: 256 << 20, VerifyEvery: -1}
			s, stop := running(b, opts)
			fill(b, s, keys)
			if where == "cache" {
				stop()
				s, _ = running(b, opts)
				for _, key := range keys {
					p, h := place(key)
					s.Get(nil, p, h, key)
				}
			}
			read := keys
			if where == "miss" {
				read = benchKeys(200_000)[100_000:]
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				buf := make([]byte, 0, 1024)
				rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for pb.Next() {
					key := read[rng.IntN(len(read))]
					h := ring.Hash(key)
					buf, _, _, _ = s.Peek(buf[:0], ring.PartitionOf(h, testPartitions), h, key)
				}
			})
		})
	}
}

func BenchmarkPeekBallot(b *testing.B) {
	keys := benchKeys(1000)
	s, _ := running(b, Options{Dir: b.TempDir(), CacheBytes: 64 << 20})
	fill(b, s, keys)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		key := keys[i%len(keys)]
		h := ring.Hash(key)
		s.PeekBallot(ring.PartitionOf(h, testPartitions), h, key)
	}
}

// BenchmarkGetMiss reads from the table: of records there, and of keys that are not.
func BenchmarkGetMiss(b *testing.B) {
	keys := benchKeys(200_000)
	s, stop := running(b, Options{Dir: b.TempDir()})
	opts := s.opts
	fill(b, s, keys[:100_000])
	stop()
	opts.Disk, opts.Table = nil, nil
	s, _ = running(b, opts)
	for name, read := range map[string][][]byte{"present": keys[:100_000], "absent": keys[100_000:]} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				buf := make([]byte, 0, 1024)
				rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for pb.Next() {
					key := read[rng.IntN(len(read))]
					p, h := place(key)
					if _, _, err := s.Get(buf, p, h, key); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkPut has writers that each wait for their write before the next.
func BenchmarkPut(b *testing.B) {
	keys := benchKeys(100_000)
	for _, interval := range []bool{false, true} {
		for _, writers := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("interval=%v/writers=%d", interval, writers), func(b *testing.B) {
				s, _ := running(b, Options{Dir: b.TempDir(), CacheBytes: 64 << 20, Interval: interval})
				fill(b, s, keys[:50_000]) // past the first segment, whose file was new
				before := s.Stats()
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for w := range writers {
					wg.Go(func() {
						done := make(waiter, 1)
						enc := counted(keys[0], 1, 100)
						for i := w; i < b.N; i += writers {
							key := keys[i%len(keys)]
							p, h := place(key)
							s.Put(p, h, key, enc, done)
							if err := <-done; err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				after := s.Stats()
				b.ReportMetric(float64(after.Puts-before.Puts)/float64(after.Batches-before.Batches), "puts/batch")
				if syncs := after.Syncs - before.Syncs; syncs > 0 {
					b.ReportMetric(float64((after.SyncTime-before.SyncTime).Microseconds())/float64(syncs), "µs/sync")
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	opts := Options{Dir: b.TempDir()}
	_, stop := running(b, opts)
	stop()
	for b.Loop() {
		s, err := Open(opts)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWarm looks up 16 keys at a time, as a batch of gets does, with their memory fetched ahead or
// not.
func BenchmarkWarm(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		keys := benchKeys(n)
		s, _ := running(b, Options{Dir: b.TempDir(), CacheBytes: 512 << 20, OverlayBytes: 512 << 20, VerifyEvery: -1})
		fill(b, s, keys)
		for _, warm := range []bool{false, true} {
			b.Run(fmt.Sprintf("keys=%d/warm=%v", n, warm), func(b *testing.B) {
				buf := make([]byte, 0, 1024)
				rng := rand.New(rand.NewPCG(1, 1))
				var batch [16][]byte
				var hashes [16]uint64
				b.ReportAllocs()
				for b.Loop() {
					for i := range batch {
						batch[i] = keys[rng.IntN(n)]
						hashes[i] = ring.Hash(batch[i])
					}
					if warm {
						for _, hash := range hashes {
							s.WarmIndex(hash)
						}
						for _, hash := range hashes {
							s.WarmEntry(hash)
						}
					}
					for i, key := range batch {
						buf, _, _, _ = s.Peek(buf[:0], ring.PartitionOf(hashes[i], testPartitions), hashes[i], key)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/key")
			})
		}
	}
}
