package backup

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"gocloud.dev/blob"
)

// Fault is something that is not as it should be.
type Fault struct {
	Object    string // its name in the bucket
	Partition int    // that is affected
	Err       error
}

func (f Fault) String() string {
	return fmt.Sprintf("partition %d: %s: %v", f.Partition, f.Object, f.Err)
}

// Verify checks a snapshot: its tables, and that all packs are there with their sizes; with data, it reads and checks
// every pack, and takes every record out of it. progress may be nil; it hears of packs that were dealt with. It holds a pack in memory.
func Verify(ctx context.Context, b *Bucket, m *Manifest, data bool, progress func(done, of int)) (faults []Fault, err error) {
	if err := b.fits(m); err != nil {
		return nil, err
	}
	tables, all := make([]*table, len(m.Entries)), fetchTables(ctx, b, m.Entries)
	if ctx.Err() != nil {
		return faults, ctx.Err()
	}
	packs := map[PackID][]int{} // partitions
	sizes := map[PackID]int64{}
	for p, e := range m.Entries {
		o, bad, err := e.decode(b, all[p], m.Leaves)
		if all[p] = nil; err != nil {
			faults = append(faults, Fault{packKey(bad), p, err})
		} else {
			tables[p] = o.last()
		}
		for _, pack := range e.Packs {
			packs[pack.ID], sizes[pack.ID] = append(packs[pack.ID], p), pack.Size
		}
	}
	ids := make([]PackID, 0, len(packs))
	for id := range packs {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b PackID) int { return slices.Compare(a[:], b[:]) })
	records := make([]int64, len(m.Entries))
	for i, id := range ids {
		var err error
		if data {
			var content []byte
			if content, err = get(ctx, b, packKey(id)); err == nil {
				if sha256.Sum256(content) != id {
					err = fmt.Errorf("%w: its checksum does not match its name", ErrDamaged)
				}
				var last lastFrame
				for _, p := range packs[id] {
					n, err := tables[p].count(b, id, content, &last)
					if err != nil {
						faults = append(faults, Fault{packKey(id), p, err})
					}
					records[p] += n
				}
			}
		} else {
			var a *blob.Attributes
			err = retry(ctx, func() (err error) { a, err = b.Attributes(ctx, packKey(id)); return err })
			if err == nil && a.Size != sizes[id] {
				err = fmt.Errorf("%w: %d bytes instead of %d", ErrDamaged, a.Size, sizes[id])
			}
		}
		if ctx.Err() != nil {
			return faults, ctx.Err()
		}
		if err != nil {
			for _, p := range packs[id] {
				faults = append(faults, Fault{packKey(id), p, err})
			}
		}
		if progress != nil {
			progress(i+1, len(ids))
		}
	}
	for p, e := range m.Entries {
		affected := slices.ContainsFunc(faults, func(f Fault) bool { return f.Partition == p })
		if data && !affected && records[p] != e.Records {
			faults = append(faults, Fault{manifestKey(m.Snapshot), p, fmt.Errorf("%w: %d records instead of %d", ErrDamaged, records[p], e.Records)})
		}
	}
	return faults, nil
}

// lastFrame is the frame of a pack that was opened last: the partition that comes next may have a part of it.
type lastFrame struct {
	Ref
	raw []byte
}

// count counts the records that lie in a pack.
func (t *table) count(b *Bucket, id PackID, content []byte, last *lastFrame) (n int64, err error) {
	if t == nil {
		return 0, nil
	}
	raws := map[int][]byte{}
	for i, f := range t.frames {
		if f.Pack != id {
			continue
		}
		if f.Offset+f.Length > int64(len(content)) {
			return n, fmt.Errorf("%w: it is too short", ErrDamaged)
		}
		if last.Ref != f.Ref {
			raw, err := b.open(f.Ref, content[f.Offset:f.Offset+f.Length])
			if err != nil {
				return n, err
			}
			*last = lastFrame{f.Ref, raw}
		}
		raws[i] = last.raw
	}
	for _, l := range t.leaves {
		for _, p := range l.pieces {
			raw, ok := raws[p.frame]
			if !ok {
				continue
			}
			for rest := raw[p.offset : p.offset+p.length]; len(rest) > 0; n++ {
				if _, _, rest, ok = nextRecord(rest); !ok {
					return n, fmt.Errorf("%w record in the frame at %d", ErrDamaged, t.frames[p.frame].Offset)
				}
			}
		}
	}
	return n, nil
}
