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
			if err := fresh[0].tell(fn); err != nil {
				return err
			}
			fresh = fresh[1:]
		}
		if len(fresh) > 0 && bytes.Equal(fresh[0].Key, key) {
			newer := fresh[0]
			if fresh = fresh[1:]; newer.Delete {
				return nil
			}
			enc = newer.Value
		}
		if err := record.Check(key, enc); err != nil {
			s.counts.corrupt(err)
			return fmt.Errorf("store: scan partition %d: %w", p, err)
		}
		return fn(key, enc)
	})
	for _, row := range fresh {
		if err == nil {
			err = row.tell(fn)
		}
	}
	return err
}

// tell calls fn with a row of the overlay, unless it is a removal.
func (r Row) tell(fn func(key, enc []byte) error) error {
	if r.Delete {
		return nil
	}
	return fn(r.Key, r.Value)
}

// overlayOf returns the newest entries of p's records behind after in the overlay, in the order of keys,
// purges among them. They alias chunks, and are good until release.
func (s *Store) overlayOf(p ring.Partition, after []byte) (rows []Row, release func()) {
	s.liveMu.Lock()
	chunks := slices.Clone(s.live)
	sealed := len(chunks)
	for i, c := range chunks {
		c.hold()
		if !c.sealed && i < sealed {
			sealed = i // whatever comes behind is not sealed either
		}
	}
	s.liveMu.Unlock()
	take := func(e entry) {
		if e.kind.ofRecord() && e.p == p && bytes.Compare(e.key, after) > 0 {
			rows = append(rows, Row{Key: e.key, Value: e.value, Delete: e.kind == kindPurge})
		}
	}
	for _, c := range chunks[:sealed] {
		for _, off := range c.directory().of(p) {
			e, _ := entryAt(c.buf[uint32(off):])
			take(e)
		}
	}
	for _, c := range chunks[sealed:] {
		c.each(func(e entry, _ ref) { take(e) })
	}
	return inOrder(rows), func() {
		for _, c := range chunks {
			c.release()
		}
	}
}

// inOrder returns the newest of each key's rows, in the order of keys; rows come in the order of the log.
func inOrder(rows []Row) []Row {
	// Sorting moves these, which are smaller than rows.
	type place struct {
		key []byte
		at  int
	}
	places := make([]place, len(rows))
	for i, r := range rows {
		places[i] = place{r.Key, i}
	}
	slices.SortFunc(places, func(a, b place) int {
		if c := bytes.Compare(a.key, b.key); c != 0 {
			return c
		}
		return b.at - a.at // the newest comes first, and stays
	})
	sorted := make([]Row, 0, len(rows))
	for i, p := range places {
		if i == 0 || !bytes.Equal(p.key, places[i-1].key) {
			sorted = append(sorted, rows[p.at])
		}
	}
	return sorted
}

// directory is the records and purges of a sealed chunk by partition: partition in the high half, offset in the
// low, sorted. Scans make it when first needed; who never scans never pays.
type directory []uint64

// of is the entries of p, in the order of the log.
func (d directory) of(p ring.Partition) directory {
	from, _ := slices.BinarySearch(d, uint64(p)<<32)
	to, _ := slices.BinarySearch(d, (uint64(p)+1)<<32)
	return d[from:to]
}

func (c *chunk) directory() directory {
	if d := c.dir.Load(); d != nil {
		return *d
	}
	var d directory
	c.each(func(e entry, r ref) {
		if e.kind.ofRecord() {
			d = append(d, uint64(e.p)<<32|uint64(uint32(r)))
		}
	})
	slices.Sort(d)
	c.dir.Store(&d)
	return d
}
