package node

import (
	"testing"

	"kai/node/ring"
)

// A key's partition, of whatever number, is among those that its partition of another number overlaps.
func TestOverlap(t *testing.T) {
	for _, of := range []int{1, 4, 64, 1024} {
		for _, now := range []int{1, 4, 64, 1024} {
			all := 0
			for p := range of {
				from, end := overlap(p, of, now)
				all += end - from
			}
			if all != max(of, now) {
				t.Errorf("%d of %d: %d overlaps", now, of, all)
			}
			for i := range 1000 {
				hash := ring.Hash([]byte{byte(i), byte(i >> 8)})
				from, end := overlap(int(ring.PartitionOf(hash, of)), of, now)
				if p := int(ring.PartitionOf(hash, now)); p < from || p >= end {
					t.Fatalf("%d of %d: partition %d is not within %d to %d", now, of, p, from, end)
				}
			}
		}
	}
}
