package placement

import (
	"encoding/binary"
	"fmt"
	"strings"

	"kai/node/record"
	"kai/node/ring"
)

// DecisionKey is the key of the register in which the configuration of partition p with that epoch is
// decided: it belongs to p itself, so that p's own members decide, by the same rounds that decide all
// else. The first value that it gets is the decision, for good; the key must never be deleted.
func DecisionKey(p ring.Partition, epoch uint32, partitions int) []byte {
	key := internal(fmt.Sprintf("configuration of partition %d, epoch %d", p, epoch))
	// A number behind it that makes the hash fall into p: some partitions' worth of tries.
	at := len(key) - 8
	for n := uint64(0); ; n++ {
		key = binary.BigEndian.AppendUint64(key[:at], n)
		if ring.PartitionOf(ring.Hash(key), partitions) == p {
			return key
		}
	}
}

// SlotKey is the key of the register in which the owner of a slot is decided: a node id. A slot is a
// node's number in ballots and versions; two nodes must never have the same, so it is never given again.
func SlotKey(slot uint16) []byte { return internal(fmt.Sprintf("slot %d", slot)) }

// internal makes a key that is Kai's own; its last 8 bytes are anybody's to set.
func internal(name string) []byte {
	return []byte(name + strings.Repeat(".", record.MaxInternalKey-len(name)))
}
