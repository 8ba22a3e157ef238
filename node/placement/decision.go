package placement

import (
	"encoding/binary"

	"kai/node/ring"
)

// Internal begins the keys that Kai keeps for itself. No client can name one: the memcache protocol
// has no control characters in keys.
const Internal = '\x00'

// DecisionKey is the key of the register in which the configuration of partition p with that epoch is
// decided: it belongs to p itself, so that p's own members decide, by the same rounds that decide all
// else. The first value that it gets is the decision, for good; the key must never be deleted.
func DecisionKey(p ring.Partition, epoch uint32, partitions int) []byte {
	key := append(make([]byte, 0, 18), Internal, 'c')
	key = binary.BigEndian.AppendUint32(key, uint32(p))
	key = binary.BigEndian.AppendUint32(key, epoch)
	// A number behind it that makes the hash fall into p: some partitions' worth of tries.
	at := len(key)
	for n := uint64(0); ; n++ {
		key = binary.BigEndian.AppendUint64(key[:at], n)
		if ring.PartitionOf(ring.Hash(key), partitions) == p {
			return key
		}
	}
}
