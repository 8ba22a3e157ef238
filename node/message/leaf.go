package message

// Leaves is how many parts a partition's records are compared in.
const Leaves = 256

// Leaf is the leaf of a hash, by bits that make neither partitions nor anything else.
func Leaf(hash uint64) int { return int(hash>>24) % Leaves }

// LeafSet is a set of leaves.
type LeafSet [Leaves / 8]byte

// Add adds a leaf.
func (s *LeafSet) Add(leaf int) { s[leaf/8] |= 1 << (leaf % 8) }

// Has reports whether leaf is in the set.
func (s *LeafSet) Has(leaf int) bool { return s[leaf/8]&(1<<(leaf%8)) != 0 }
