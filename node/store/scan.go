package store

import (
	"bytes"
	"fmt"
	"slices"

	"kai/node/record"
	"kai/node/ring"
)

// Scan calls fn with the records of partition p whose keys are greater than after, all if that is
// empty, in the order of keys, those not yet in the table included. All that was committed before Scan began is there; of what is committed meanwhile, some
// may be. The slices are valid until fn returns. It ends with fn's first error, or with one that
// wraps record.ErrCorrupt at a damaged record.
func (s *Store) Scan(p ring.Partition, after []byte, fn func(key, enc []byte) error) error {
	// Overlay first, table second: what moves from the one to the other in between is seen twice,
	// not missed. Which of the two is newer does not matter: both were current during the scan.
	fresh, release := s.overlayOf(p, after)
	defer release()
	from := appendTableKey(nil, p, after)
	if len(after) > 0 {
		from = append(from, 0) // the least key behind it
	}
	to := appendTableKey(nil, p+1, nil)
	if p+1 == 0 {
		to = []byte{spaceRecord + 1}
	}
	err := s.table.Scan(from, to, func(key, enc []byte) error {
		key = key[recordPrefixLen:]
		for len(fresh) > 0 && bytes.Compare(fresh[0].Key, key) < 0 {
			if err := fn(fresh[0].Key, fresh[0].Value); err != nil {
				return err
			}
			fresh = fresh[1:]
		}
		if len(fresh) > 0 && bytes.Equal(fresh[0].Key, key) {
			enc, fresh = fresh[0].Value, fresh[1:]
		}
		if err := record.Check(key, enc); err != nil {
			s.counts.corrupt(err)
			return fmt.Errorf("store: scan partition %d: %w", p, err)
		}
		return fn(key, enc)
	})
	for _, row := range fresh {
		if err == nil {
			err = fn(row.Key, row.Value)
		}
	}
	return err
}

// overlayOf returns the newest entries of p's records behind after in the overlay, in the order of keys.
// They alias chunks, and are good until release. It goes through the indexes, not the entries: a
// partition is a small part of the overlay, and its hashes tell.
func (s *Store) overlayOf(p ring.Partition, after []byte) (rows []Row, release func()) {
	held := map[uint32]*chunk{}
	for i := range s.shards {
		s.shards[i].collect(s.window, func(hash uint64) bool {
			return s.opts.Partitions == 0 || ring.PartitionOf(hash, s.opts.Partitions) == p
		}, func(e entry, r ref) {
			if e.kind != kindRecord || e.p != p || bytes.Compare(e.key, after) <= 0 {
				return
			}
			if held[r.chunk()] == nil {
				held[r.chunk()] = s.window.slot(r.chunk()).Load().hold()
			}
			rows = append(rows, Row{e.key, e.value})
		})
	}
	slices.SortFunc(rows, func(a, b Row) int { return bytes.Compare(a.Key, b.Key) })
	return rows, func() {
		for _, c := range held {
			c.release()
		}
	}
}

// collect calls fn with the newest entries of the overlay whose hashes are wanted.
func (sh *shard) collect(w window, wanted func(hash uint64) bool, fn func(entry, ref)) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, slot := range sh.index.slots {
		if place := slot.next - 1; slot.next != 0 && place&inOverlay != 0 && wanted(slot.hash) {
			r := ref(place &^ inOverlay)
			fn(w.at(r), r)
		}
	}
	for _, r := range sh.twins {
		fn(w.at(r), r)
	}
}
