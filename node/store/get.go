package store

import (
	"errors"
	"fmt"

	"kai/node/record"
	"kai/node/ring"
)

// Get appends key's record, as last committed, to dst; found=false: never written. An error that
// wraps record.ErrCorrupt says that there is a record and it is damaged. It may read the disk.
func (s *Store) Get(dst []byte, p ring.Partition, hash uint64, key []byte) (enc []byte, found bool, err error) {
	want := entry{kind: kindRecord, p: p, hash: hash, key: key}
	return s.get(dst, &want)
}

// maxTorn bounds how often a torn read is tried again; each needs a write to the shard meanwhile.
const maxTorn = 16

func (s *Store) get(dst []byte, want *entry) (enc []byte, found bool, err error) {
	var tableKey []byte
	for try := 0; ; try++ {
		enc, l := s.peek(dst, want)
		if l.known {
			return enc, l.found, nil
		}
		if tableKey == nil {
			tableKey = want.tableKey(make([]byte, 0, recordPrefixLen+len(want.key)))
		}
		enc, found, err = s.table.Get(dst, tableKey)
		value := enc[len(dst):]
		if err == nil && found && want.kind == kindRecord {
			err = record.Check(want.key, value)
		}
		unchanged := s.keep(want, value, found, err == nil, l.seq)
		if err == nil {
			return enc, found, nil
		}
		// The table may be seen in the middle of writing a record that it keeps in pieces. Then the
		// overlay, looked at before, has the record by now.
		if unchanged || try == maxTorn || !errors.Is(err, record.ErrCorrupt) {
			s.counts.corrupt(err)
			return dst, false, fmt.Errorf("store: get from partition %d: %w", want.p, err)
		}
	}
}

// keep puts what the table said of want's key into the cache, unless a write was made visible since
// seq was read. It reports whether none was.
func (s *Store) keep(want *entry, value []byte, found, good bool, seq uint64) bool {
	sh := s.shard(want.hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.seq != seq {
		return false
	}
	if good && want.kind == kindRecord {
		e := *want
		e.value = value
		sh.keep(&e, found)
	}
	return true
}
