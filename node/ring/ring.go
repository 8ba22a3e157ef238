// Package ring maps keys to partitions and partitions to preference lists, and holds the values
// that describe a cluster: node ids, configurations, views. It is pure.
package ring

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// NodeID names a Kai process for the life of its data directory: 16 lower-case hex digits, random.
type NodeID string

// Partition numbers a fixed slice of the hash space, from 0.
type Partition uint32

// MaxPartitions bounds the number of partitions of a cluster.
const MaxPartitions = 1 << 16

// Hash is the position of key in the hash space.
func Hash(key []byte) uint64 { return xxhash.Sum64(key) }

// PartitionOf returns the partition of a hash among n partitions; n is a power of two. The high
// bits decide, so that a partition is one contiguous slice of the hash space.
func PartitionOf(hash uint64, n int) Partition {
	return Partition(hash >> 1 >> (63 - bits.TrailingZeros(uint(n))))
}

// Quorum is N:R:W.
type Quorum struct{ N, R, W int }

func (q Quorum) String() string { return fmt.Sprintf("%d:%d:%d", q.N, q.R, q.W) }

// Check refuses quorums that need not intersect.
func (q Quorum) Check() error {
	switch {
	case q.N < 1 || q.N > MaxReplicas || q.R < 1 || q.W < 1 || q.R > q.N || q.W > q.N:
		return fmt.Errorf("quorum %s: needs 1 ≤ R, W ≤ N ≤ %d", q, MaxReplicas)
	case q.R+q.W <= q.N:
		return fmt.Errorf("quorum %s: R+W must be greater than N (reads would miss writes)", q)
	case 2*q.W <= q.N:
		return fmt.Errorf("quorum %s: W must be greater than N/2 (writes would miss each other)", q)
	}
	return nil
}

// For is the quorum of a partition that has n replicas: q itself when n is q.N; with fewer nodes
// than N, majorities of n.
func (q Quorum) For(n int) Quorum {
	if n == q.N {
		return q
	}
	return Quorum{N: n, R: n/2 + 1, W: n/2 + 1}
}

// MaxReplicas bounds N.
const MaxReplicas = 7

// Configuration says who the replicas of a partition are at an epoch. While a partition moves it is
// joint: Next is not empty, and every quorum needs a quorum of Members and one of Next.
type Configuration struct {
	Epoch   uint32
	Members []NodeID // in preference order; the first is the favoured coordinator
	Next    []NodeID // empty when stable
}

// Equal compares by content.
func (c Configuration) Equal(o Configuration) bool {
	return c.Epoch == o.Epoch && slices.Equal(c.Members, o.Members) && slices.Equal(c.Next, o.Next)
}

// Has reports whether id is a replica, now or after the move.
func (c Configuration) Has(id NodeID) bool {
	return slices.Contains(c.Members, id) || slices.Contains(c.Next, id)
}

// Node is what placement needs to know of a node.
type Node struct {
	ID   NodeID
	Zone string
}

// GenerationShift is where the generation of a partition stands in an epoch; see Generation.
const GenerationShift = 24

// Generation is how often a partition at that epoch was given a configuration that its members did not
// decide (recovery), because too many of them were gone for good.
func Generation(epoch uint32) uint32 { return epoch >> GenerationShift }
