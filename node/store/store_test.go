package store

import (
	"fmt"
	"testing"
)

// backends are the ways to open a store; each reopens the same data.
func backends(t *testing.T, test func(t *testing.T, opts Options)) {
	t.Run("mem", func(t *testing.T) {
		test(t, small(Options{Disk: NewMemDisk(MemDiskOptions{}), Table: NewMemTable(), CacheBytes: 1 << 20}))
	})
	t.Run("badger", func(t *testing.T) {
		test(t, small(Options{Dir: t.TempDir(), CacheBytes: 1 << 20}))
	})
	t.Run("nocache", func(t *testing.T) {
		test(t, small(Options{Dir: t.TempDir()}))
	})
}

func TestWritesAreReadBackAndSurviveRestarts(t *testing.T) {
	backends(t, func(t *testing.T, opts Options) {
		want := map[string]uint64{}
		var n uint64
		for round := range 3 {
			s, stop := running(t, opts)
			if !s.CleanStop() || s.Amnesia() {
				t.Fatalf("round %d: clean stop %v, amnesia %v", round, s.CleanStop(), s.Amnesia())
			}
			for key := range want {
				if have := got(t, s, key); have != want[key] {
					t.Fatalf("round %d: %s is %d, want %d", round, key, have, want[key])
				}
			}
			for i := range 300 {
				n++
				key := fmt.Sprintf("key-%d", (i*7+round*31)%140)
				if want[key] = n; i%4 == 3 { // half of them were there
					want[key] = 0
					purge(t, s, key)
				} else {
					put(t, s, key, n, i%900)
				}
				if have := got(t, s, key); have != want[key] {
					t.Fatalf("%s is %d, want %d", key, have, want[key])
				}
			}
			if have := got(t, s, "never"); have != 0 {
				t.Fatalf("never written, but %d", have)
			}
			stop()
		}
	})
}
