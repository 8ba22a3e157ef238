package store

import (
	"encoding/binary"

	"kai/node/ring"
)

// Table is the ordered map below the commit log. Keys are compared bytewise.
type Table interface {
	// Get appends key's value to dst. An error that wraps record.ErrCorrupt says that the value is
	// there but damaged.
	Get(dst, key []byte) (value []byte, found bool, err error)
	// Apply writes rows in their order and returns when they are durable. It need not be atomic: a
	// crash may leave any number of the first rows. It keeps no slice. Not called concurrently.
	Apply(rows []Row) error
	// Scan calls fn with all rows from ≤ key < to, in order, as of the start of the call. The
	// slices are valid until fn returns.
	Scan(from, to []byte, fn func(key, value []byte) error) error
	Close() error
}

// Row is one key and value of a Table, or the removal of a key.
type Row struct {
	Key, Value []byte
	// Delete: the key is to be removed, if it is there. Value is nil.
	Delete bool
}

// Spaces are the first byte of a table's keys.
const (
	spaceMeta   = 'm'
	spaceRecord = 'r'
	spaceState  = 's'
)

const recordPrefixLen = 5

// appendTableKey appends the table's key of a record: space, partition, key.
func appendTableKey(dst []byte, p ring.Partition, key []byte) []byte {
	dst = append(dst, spaceRecord)
	dst = binary.BigEndian.AppendUint32(dst, uint32(p))
	return append(dst, key...)
}

// tableKey of a log entry.
func (e *entry) tableKey(dst []byte) []byte {
	if e.kind == kindMeta {
		return append(append(dst, spaceMeta), e.key...)
	}
	return appendTableKey(dst, e.p, e.key)
}

// row is what a log entry brings to the table.
func (e *entry) row() Row {
	if e.kind == kindPurge {
		return Row{Key: e.tableKey(nil), Delete: true}
	}
	return Row{Key: e.tableKey(nil), Value: e.value}
}
