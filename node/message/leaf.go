package message

import (
	"encoding/binary"

	"kai/node/record"
	"kai/node/ring"
)

// Leaves is how many parts a partition's records are compared in.
const Leaves = 256

// Leaf is the leaf of a hash: its low byte, which has no part in making partitions.
func Leaf(hash uint64) int { return int(hash % Leaves) }

// Term is what a record adds to its leaf's sum: a hash of its key's hash and its ballot; a key never written adds nothing.
func Term(hash uint64, b record.Ballot) uint64 {
	if b.IsZero() {
		return 0
	}
	var buf [20]byte
	binary.LittleEndian.PutUint64(buf[:], hash)
	binary.LittleEndian.PutUint64(buf[8:], uint64(b.Stamp))
	binary.LittleEndian.PutUint32(buf[16:], b.Epoch)
	return ring.Hash(buf[:])
}

// Root is one sum of the sums of all leaves, in their order.
func Root(sums []uint64) uint64 {
	var buf [8 * Leaves]byte
	b := buf[:0]
	for _, s := range sums {
		b = binary.LittleEndian.AppendUint64(b, s)
	}
	return ring.Hash(b)
}

// LeafSet is a set of leaves.
type LeafSet [Leaves / 8]byte

// Add adds a leaf.
func (s *LeafSet) Add(leaf int) { s[leaf/8] |= 1 << (leaf % 8) }

// Has reports whether leaf is in the set.
func (s *LeafSet) Has(leaf int) bool { return s[leaf/8]&(1<<(leaf%8)) != 0 }

// promisedLen is the length of the items that answer a PrepareAll: a LeafSet of the leaves whose sums are
// known, then the sums.
const promisedLen = Leaves/8 + 8*Leaves

// BeginPromised appends the answer to a PrepareAll, with no sum known, to dst[:0].
func BeginPromised(dst []byte) []byte {
	return append(dst, make([]byte, promisedLen)...)
}

// SetPromised puts the sum of a leaf into items, which BeginPromised made.
func SetPromised(items []byte, leaf int, sum uint64, known bool) []byte {
	if known {
		items[leaf/8] |= 1 << (leaf % 8)
		binary.LittleEndian.PutUint64(items[Leaves/8+8*leaf:], sum)
	}
	return items
}

// PromisedLeaf reads the sum of a leaf from the answer to a PrepareAll; of items that are none, nothing is known.
func PromisedLeaf(items []byte, leaf int) (sum uint64, known bool) {
	if len(items) != promisedLen || items[leaf/8]&(1<<(leaf%8)) == 0 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(items[Leaves/8+8*leaf:]), true
}
