package placement

import (
	"errors"
	"testing"

	"kai/node/record"
	"kai/node/ring"
)

func TestDecisionKey(t *testing.T) {
	seen := map[string]bool{}
	for _, partitions := range []int{1, 64, 1024} {
		for _, p := range []ring.Partition{0, ring.Partition(partitions - 1)} {
			for epoch := uint32(2); epoch < 50; epoch++ {
				key := DecisionKey(p, epoch, partitions)
				if got := ring.PartitionOf(ring.Hash(key), partitions); got != p {
					t.Fatalf("the key of partition %d is in partition %d", p, got)
				}
				if !record.Internal(key) || len(key) > record.MaxInternalKey || string(key) != string(DecisionKey(p, epoch, partitions)) {
					t.Fatalf("%q", key)
				}
				seen[string(key)] = true
			}
		}
	}
	// With one partition, p is 0 both times; of 1,024 and 64 the first is the same number.
	if len(seen) < 3*48 {
		t.Errorf("%d different keys", len(seen))
	}
}

func TestNeedsPull(t *testing.T) {
	q := ring.Quorum{N: 3, R: 2, W: 2}
	for _, c := range []struct {
		name          string
		members, next []ring.NodeID
		id            ring.NodeID
		q             ring.Quorum
		want          bool
	}{
		{"a new member", []ring.NodeID{"a", "b", "c"}, []ring.NodeID{"a", "b", "d"}, "d", q, true},
		{"one that stays", []ring.NodeID{"a", "b", "c"}, []ring.NodeID{"a", "b", "d"}, "a", q, false},
		{"one that grows to three", []ring.NodeID{"a"}, []ring.NodeID{"a", "b", "c"}, "a", q, false},
		{"three that shrink to one: it may have missed what the others have", []ring.NodeID{"a", "b", "c"}, []ring.NodeID{"a"}, "a", q, true},
		{"R 1, W 3: nobody missed anything", []ring.NodeID{"a", "b", "c"}, []ring.NodeID{"a", "b", "d"}, "a", ring.Quorum{N: 3, R: 1, W: 3}, false},
		{"five", []ring.NodeID{"a", "b", "c", "d", "e"}, []ring.NodeID{"a", "b", "c", "d", "f"}, "a", ring.Quorum{N: 5, R: 3, W: 3}, false},
	} {
		if got := needsPull(ring.Configuration{Epoch: 2, Members: c.members, Next: c.next}, c.id, c.q); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestMoveRefusesToShrink(t *testing.T) {
	m := NewMover(Options{Partitions: 1, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Configuration: func(ring.Partition) ring.Configuration {
		return ring.Configuration{Epoch: 1, Members: []ring.NodeID{"a", "b", "c"}}
	}})
	if err := m.Move(t.Context(), 0, []ring.NodeID{"a"}); !errors.Is(err, ErrShrinks) {
		t.Errorf("three replicas to one: %v", err)
	}
}
