package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"
)

// Summary is one line of List.
type Summary struct {
	Begin
	// Manifest is nil if the snapshot is not complete (yet), or cannot be read; then Err says why.
	Manifest *Manifest `json:"-"`
	Err      error     `json:"-"`
}

// Complete tells whether it can be restored from.
func (s Summary) Complete() bool { return s.Manifest != nil }

// List returns the snapshots of a bucket, the oldest first (by their cut, and without one by their names). What cannot be read is listed with its error.
func List(ctx context.Context, b *Bucket) (all []Summary, err error) {
	err = list(ctx, b, snapshotsDir, true, func(o *blob.ListObject) error {
		if !o.IsDir {
			return nil
		}
		id := snapshotOf(o.Key)
		s := Summary{Begin: Begin{Snapshot: id}}
		if m, err := Open(ctx, b, id); err == nil {
			s.Begin, s.Manifest = m.Begin, m
		} else if missing(err) {
			if err := document(ctx, b, beginKey(id), &s.Begin); err != nil {
				s.Begin, s.Err = Begin{Snapshot: id}, err
			}
		} else {
			s.Err = err
		}
		all = append(all, s)
		return ctx.Err()
	})
	slices.SortStableFunc(all, func(a, b Summary) int {
		return cmp.Or(a.Cut.Compare(b.Cut), strings.Compare(a.Snapshot, b.Snapshot))
	})
	return all, err
}

// Begun returns the snapshots of a cluster that are under way: begun, neither complete nor expired; and its newest that is complete, among those
// that known did not have yet, or nil. It puts into known whatever need not be looked at again.
func Begun(ctx context.Context, b *Bucket, cluster string, known map[string]bool) (begun []string, newest *Manifest, err error) {
	err = list(ctx, b, snapshotsDir, true, func(o *blob.ListObject) error {
		id := snapshotOf(o.Key)
		if !o.IsDir || known[id] {
			return nil
		}
		m, err := Open(ctx, b, id)
		switch {
		case err == nil:
			known[id] = true
			if m.Cluster == cluster && (newest == nil || m.Cut.After(newest.Cut)) {
				newest = m
			}
			return nil
		case errors.Is(err, ErrDamaged):
			known[id] = true // verify tells of it
			return nil
		case !missing(err):
			return err
		}
		var begin Begin
		if err := document(ctx, b, beginKey(id), &begin); err != nil {
			if missing(err) || errors.Is(err, ErrDamaged) {
				return nil // being removed; or damaged
			}
			return err
		}
		if time.Now().After(begin.Expires) || begin.Cluster != cluster {
			known[id] = true
			return nil
		}
		begun = append(begun, id)
		return nil
	})
	return begun, newest, err
}

// Announce begins the snapshot that b names by cluster, partitions and leaves, for the cluster's nodes to find and to take: it writes
// BEGIN, with the newest complete snapshot of that cluster, shape and key for a parent. If it is begun already, the error's gcerrors code is FailedPrecondition.
func Announce(ctx context.Context, bucket *Bucket, b *Begin, patience time.Duration) error {
	all, err := List(ctx, bucket)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	b.Format, b.Cut, b.Expires, b.Key = Format, now, now.Add(patience), bucket.Key.ID()
	for _, s := range all {
		if s.Complete() && s.Cluster == b.Cluster && s.Partitions == b.Partitions && s.Leaves == b.Leaves && s.Key == b.Key {
			b.Parent = s.Snapshot // the last is the newest
		}
	}
	content, err := seal(b)
	if err != nil {
		return err
	}
	return put(ctx, bucket, beginKey(b.Snapshot), content, true)
}

// Progress returns how many partitions of a snapshot under way are uploaded.
func Progress(ctx context.Context, b *Bucket, id string) (done int, err error) {
	there := map[int]bool{}
	err = list(ctx, b, partsDir(id), false, func(o *blob.ListObject) error {
		var p Part
		if err := document(ctx, b, o.Key, &p); err != nil {
			return err
		}
		for _, e := range p.Entries {
			there[e.Partition] = true
		}
		return nil
	})
	return len(there), err
}

// Open reads the manifest of a snapshot. If it is not complete, the error's gcerrors code is NotFound.
func Open(ctx context.Context, b *Bucket, snapshot string) (*Manifest, error) {
	var m Manifest
	if err := document(ctx, b, manifestKey(snapshot), &m); err != nil {
		return nil, err
	}
	if m.Snapshot != snapshot || len(m.Entries) != m.Partitions {
		return nil, fmt.Errorf("backup: %s: %w: it is of snapshot %q, with %d of %d partitions", manifestKey(snapshot), ErrDamaged, m.Snapshot, len(m.Entries), m.Partitions)
	}
	for p, e := range m.Entries {
		if e.Partition != p {
			return nil, fmt.Errorf("backup: %s: %w: partition %d at the place of %d", manifestKey(snapshot), ErrDamaged, e.Partition, p)
		}
	}
	return &m, nil
}

// stored is what the bucket has of an entry's tables, bases first: frames, or why they cannot be read.
type stored []struct {
	frame []byte
	err   error
}

// refs are those of all tables, bases first.
func (e Entry) refs() []Ref { return append(slices.Clone(e.Bases), e.Table) }

// fetchTables reads the tables of entries, in few requests.
func fetchTables(ctx context.Context, b *Bucket, entries []Entry) []stored {
	var refs []Ref
	for _, e := range entries {
		refs = append(refs, e.refs()...)
	}
	all := make(stored, len(refs))
	together := runs(refs)
	_ = sideBySide(ctx, len(together), func(ctx context.Context, r int) error {
		run := together[r]
		frames, _, err := fetch(ctx, b, refs, run)
		for k, i := range run {
			switch {
			case err == nil:
				all[i].frame = frames[k]
			case len(run) == 1:
				all[i].err = err
			default: // not all of them may be lost
				if one, _, err := fetch(ctx, b, refs, run[k:k+1]); err != nil {
					all[i].err = err
				} else {
					all[i].frame = one[0]
				}
			}
		}
		return nil
	})
	each := make([]stored, len(entries))
	for i, e := range entries {
		n := len(e.Bases) + 1
		each[i], all = all[:n], all[n:]
	}
	return each
}

// opened are an entry's tables: what the bases say, one after the other, and at last the table itself.
type opened []struct {
	*table
	ref  Ref
	pack Pack
}

// last is the table itself.
func (o opened) last() *table { return o[len(o)-1].table }

// decode looks into an entry's tables. An error is about the pack that is returned.
func (e Entry) decode(b *Bucket, s stored, leaves int) (o opened, bad PackID, err error) {
	o = make(opened, len(s))
	var base *table
	for i, ref := range e.refs() {
		var raw []byte
		if err = s[i].err; err == nil {
			raw, err = b.open(ref, s[i].frame)
		}
		if err != nil {
			return nil, ref.Pack, err
		}
		t, err := decodeTable(raw, base, leaves)
		if err != nil {
			return nil, ref.Pack, fmt.Errorf("partition %d: %w", e.Partition, err)
		}
		o[i].table, o[i].ref, o[i].pack, base = t, ref, e.pack(ref.Pack), t
	}
	return o, PackID{}, nil
}

// open reads the table.
func (e Entry) open(ctx context.Context, b *Bucket, leaves int) (*table, error) {
	o, _, err := e.decode(b, fetchTables(ctx, b, []Entry{e})[0], leaves)
	if err = cmp.Or(ctx.Err(), err); err != nil {
		return nil, err
	}
	return o.last(), nil
}

// tableBytes is how much open reads.
func (e Entry) tableBytes() (n int64) {
	for _, ref := range e.refs() {
		n += ref.Length
	}
	return n
}

// Sink takes records in. The record's slices are its own. ctx ends with the restore.
type Sink func(ctx context.Context, partition int, records []Item) error

// Item is a record of a snapshot.
type Item struct{ Key, Value []byte }

// Restored is what Restore did.
type Restored struct {
	Partitions int
	Records    int64
	Bytes      int64   // of keys and values
	Fetched    int64   // bytes read from the bucket
	Faults     []Fault // partitions that were left out, or not brought back as a whole
}

// Restore hands the records of a snapshot's partitions to sink, for which want says so; each partition is one
// call or more, those of several partitions in any order, but one at a time. A partition that is damaged ends it with an error that names it; with partial, it is left
// out, and told in Faults: nothing of a damaged frame comes to sink. Bringing records back twice must do no harm in sink: what fails is
// begun again, partition by partition.
func Restore(ctx context.Context, b *Bucket, m *Manifest, want func(partition int) bool, partial bool, sink Sink) (done Restored, err error) {
	if err := b.fits(m); err != nil {
		return done, err
	}
	var wanted []Entry
	for p, e := range m.Entries {
		if want(p) {
			wanted = append(wanted, e)
		}
	}
	var counting, sinking sync.Mutex
	inTurn := func(ctx context.Context, p int, items []Item) error {
		sinking.Lock()
		defer sinking.Unlock()
		if err := ctx.Err(); err != nil { // another partition has failed meanwhile
			return err
		}
		return sink(ctx, p, items)
	}
	err = sideBySide(ctx, len(wanted), func(ctx context.Context, i int) error {
		e := wanted[i]
		n, fetched, err := e.restore(ctx, b, m.Leaves, inTurn)
		counting.Lock()
		defer counting.Unlock()
		done.Records, done.Fetched = done.Records+n.records, done.Fetched+fetched
		done.Bytes += n.bytes
		switch {
		case err == nil:
			done.Partitions++
		case ctx.Err() != nil || !partial || n.refused:
			return fmt.Errorf("backup: restore partition %d of snapshot %s: %w", e.Partition, m.Snapshot, err)
		default:
			done.Faults = append(done.Faults, Fault{packKey(e.Table.Pack), e.Partition, err})
		}
		return nil
	})
	slices.SortFunc(done.Faults, func(a, b Fault) int { return cmp.Compare(a.Partition, b.Partition) })
	return done, err
}

// readers is how many partitions are read side by side: most of the time is the bucket's latency.
const readers = 8

// sideBySide calls f with each number below n, some at a time, until one fails; it returns that error, once none is under way any more.
func sideBySide(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(readers, n) {
		wait.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(ctx, i); err != nil {
					cancel(err) // the first counts
				}
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

type counted struct {
	records, bytes int64
	refused        bool // by sink
}

func (e Entry) restore(ctx context.Context, b *Bucket, leaves int, sink Sink) (n counted, fetched int64, err error) {
	t, err := e.open(ctx, b, leaves)
	if err != nil {
		return n, e.tableBytes(), err
	}
	fetched = e.tableBytes()
	inFrame, refs := make([][]piece, len(t.frames)), make([]Ref, len(t.frames))
	for i, f := range t.frames {
		refs[i] = f.Ref
	}
	for _, l := range t.leaves {
		for _, p := range l.pieces {
			inFrame[p.frame] = append(inFrame[p.frame], p)
		}
	}
	for _, run := range runs(refs) {
		frames, size, err := fetch(ctx, b, refs, run)
		if err != nil {
			return n, fetched, err
		}
		fetched += size
		for k, i := range run {
			f := refs[i]
			raw, err := b.open(f, frames[k])
			if err != nil {
				return n, fetched, err
			}
			var items []Item
			for _, p := range inFrame[i] {
				for rest := raw[p.offset : p.offset+p.length]; len(rest) > 0; {
					var it Item
					var ok bool
					if it.Key, it.Value, rest, ok = nextRecord(rest); !ok {
						return n, fetched, fmt.Errorf("%w record in the frame at %d of pack %s", ErrDamaged, f.Offset, f.Pack)
					}
					items = append(items, it)
					n.records++
					n.bytes += int64(len(it.Key) + len(it.Value))
				}
			}
			if len(items) == 0 {
				continue
			}
			if err := sink(ctx, e.Partition, items); err != nil {
				n.refused = true
				return n, fetched, err
			}
		}
	}
	if n.records != e.Records {
		return n, fetched, fmt.Errorf("%w: %d records instead of %d", ErrDamaged, n.records, e.Records)
	}
	return n, fetched, nil
}
