package store

import (
	"math/rand/v2"
	"testing"
)

// An index is a map; hashes that meet in few places make it probe, wrap around and move.
func TestIndex(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var x index[uint32]
		model := map[uint64]uint32{}
		for step := range 4000 {
			hash := rng.Uint64N(300) * numShards // 0 is a hash, too
			if seed%2 == 0 {
				hash <<= 20 // all begin at the same slot
			}
			// Waves: it fills up and empties again.
			if full := step/500%2 == 0; rng.IntN(10) < 2 == full {
				x.drop(hash)
				delete(model, hash)
			} else {
				v := rng.Uint32() >> 1
				x.put(hash, v)
				model[hash] = v
			}
			if x.len() != len(model) {
				t.Fatalf("seed %d step %d: %d entries, want %d", seed, step, x.len(), len(model))
			}
			if len(x.slots) > leastSlots && len(x.slots) > 32*max(1, x.len()) {
				t.Fatalf("seed %d step %d: %d slots for %d entries", seed, step, len(x.slots), x.len())
			}
		}
		for h := range uint64(300) {
			for _, hash := range []uint64{h * numShards, h * numShards << 20} {
				got, ok := x.get(hash)
				if want, has := model[hash]; ok != has || ok && got != want {
					t.Fatalf("seed %d: get(%x) = %d %v, want %d %v", seed, hash, got, ok, want, has)
				}
			}
		}
	}
}

func BenchmarkIndex(b *testing.B) {
	const n = 1 << 20
	hashes := make([]uint64, n)
	rng := rand.New(rand.NewPCG(1, 2))
	var x index[uint32]
	m := map[uint64]uint32{}
	for i := range hashes {
		hashes[i] = rng.Uint64()
		x.put(hashes[i], uint32(i))
		m[hashes[i]] = uint32(i)
	}
	b.Run("index", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			x.get(hashes[i*7919%n])
		}
	})
	b.Run("map", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			_ = m[hashes[i*7919%n]]
		}
	})
}
