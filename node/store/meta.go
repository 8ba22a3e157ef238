package store

import (
	"hash/crc32"
	"math"

	"kai/node/record"
	"kai/node/ring"
)

// maxMetaName is the longest name of a meta value.
const maxMetaName = math.MaxUint8

// metaEntry is a meta value in the terms of the log. It shares index and log with the records.
func metaEntry(name string, value []byte) entry {
	// Any hash does; ring.Hash is for keys.
	h := crc32.Checksum([]byte(name), castagnoli)
	return entry{kind: kindMeta, p: ring.Partition(math.MaxUint32), hash: uint64(h), key: []byte(name), value: value}
}

// Meta returns the value of name as last committed, nil when it was never written. The caller owns
// it. The error wraps record.ErrCorrupt when the value is damaged. It may read the disk.
func (s *Store) Meta(name string) ([]byte, error) {
	want := metaEntry(name, nil)
	sealed, found, err := s.get(nil, &want)
	if err != nil || !found {
		return nil, err
	}
	return openMeta(name, sealed)
}

// PutMeta stages a write of a meta value, as Put does a record's: same log, same order. It is synced
// before done is told, whatever the durability. Names have at most 255 bytes; name and value are copied.
func (s *Store) PutMeta(name string, value []byte, done interface{ Committed(error) }) {
	if len(name) > maxMetaName || len(value)+4 > s.opts.MaxRecordBytes {
		done.Committed(ErrTooLarge)
		return
	}
	s.stage(metaEntry(name, sealMeta(name, value)), done)
}

// sealMeta adds a checksum to a value: records carry their own, the table's rows do not.
func sealMeta(name string, value []byte) []byte {
	sum := crc32.Update(crc32.Checksum([]byte(name), castagnoli), castagnoli, value)
	b := append(make([]byte, 0, 4+len(value)), byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
	return append(b, value...)
}

func openMeta(name string, b []byte) ([]byte, error) {
	if len(b) < 4 {
		return nil, record.ErrCorrupt
	}
	if sealed := sealMeta(name, b[4:]); string(sealed[:4]) != string(b[:4]) {
		return nil, record.ErrCorrupt
	}
	return b[4:], nil
}
