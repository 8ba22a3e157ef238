package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// Source is what a node holds. Its methods are called one at a time.
type Source interface {
	// Sums returns the sum of each leaf of a partition: 0 if it is empty, and another one once any record of it changes. They stand
	// for what a read quorum holds, not only this node.
	Sums(ctx context.Context, partition int) ([]uint64, error)
	// Records calls yield with all records of some leaves, tombstones included, in any order; yield keeps no slices, and blocks no longer than
	// Options.GiveWay. Every MiB or so it calls pause, which may: it is to hold nothing then that others need. It stops at the first error of either, and returns it.
	Records(ctx context.Context, partition int, leaves []int, yield func(Record) error, pause func() error) error
}

// Options of New.
type Options struct {
	Bucket *Bucket
	// Cluster and Node are names that a path may hold; Node differs from that of every other node.
	Cluster, Node      string
	Partitions, Leaves int
	Source             Source
	// Patience is after how long a snapshot that is not complete is taken for given up.
	Patience time.Duration
	// Look is the time between two looks at what other nodes have uploaded.
	Look time.Duration
	// GiveWay, if not nil, is called before n more bytes of records are worked on, 32 KiB or so: each is counted twice, as it is read and as it is compressed. Each partition
	// is counted as 64 KiB more. It may
	// wait a while, so that whoever is served meanwhile notices little. Several goroutines call it.
	GiveWay func(ctx context.Context, n int)
	// Leave, once closed, ends Take as soon as what it has uploaded can be used by the others; nil: never.
	Leave  <-chan struct{}
	Logger *slog.Logger
}

// ErrLeft is Take's answer to Options.Leave: the others complete the snapshot.
var ErrLeft = errors.New("backup: this node has left the snapshot to the others")

// Snapshotter is one node's part in the snapshots of its cluster.
type Snapshotter struct{ o Options }

// New makes a snapshotter; it starts nothing.
func New(o Options) *Snapshotter { return &Snapshotter{o: o} }

// Done is what Take did. Bytes are those uploaded, Puts the objects.
type Done struct {
	*Manifest
	Partitions, Puts  int
	Records, Bytes    int64
	Unchanged, Leaves int // of the leaves of those partitions
}

// taking is one Take.
type taking struct {
	*Snapshotter
	begin  Begin
	parent map[int]Entry // by partition
	pack   *packer       // of records
	tables *packer
	ready  []*built
	due    func(partition int) bool // whether it is this node's turn to upload it
	// fetched are tables of the parent that were read ahead, by partition.
	fetched map[int]stored
	// open is the frame that grows, behind the records of several partitions if they are few; ref is filled in once it is in a pack.
	open struct {
		raw []byte // nil: there is none
		ref *Ref
	}
	held  gathering // gather's, used again
	read  int       // bytes of records, of which GiveWay was not told yet
	parts int       // numbers of this node's parts that are taken
	told  struct {  // when a part was last written
		bytes int64     // of pack by then
		at    time.Time // or was to be, had there been anything to tell
		last  time.Time
	}
	done Done
}

// built is a partition whose frames are written, or wait in the packer.
type built struct {
	entry  Entry
	table  table
	frames []*Ref // those of table that are new, at its end
	old    opened // the parent's; nil: there is none
	kept   bool   // the entry is the parent's, since nothing has changed
	ref    Ref    // of the table
}

// Take takes part in the snapshot named id: it begins it if nobody has, uploads the partitions for which turn says so and which nobody has uploaded yet, and
// completes it once all are there. turn tells after how long without any progress this node uploads a partition (0: at once; negative:
// never, it does not hold it), so that nodes step in for each other; two that upload the same do no harm. Take returns
// when the snapshot is complete, by whoever, or with the error that kept this node from its part, or ErrLeft; called again, perhaps
// after a restart, it goes on where it was.
func (s *Snapshotter) Take(ctx context.Context, id string, turn func(partition int) time.Duration) (Done, error) {
	t := &taking{Snapshotter: s}
	if m, err := Open(ctx, s.o.Bucket, id); err == nil || !missing(err) {
		t.done.Manifest = m
		return t.done, err
	}
	if err := t.enter(ctx, id); err != nil {
		return t.done, err
	}
	var err error
	if t.pack, err = newPacker(s.o.Bucket, s.o.GiveWay, id+" "+s.o.Node+" "+strconv.FormatInt(time.Now().UnixNano(), 36)); err != nil {
		return t.done, err
	}
	if t.tables, err = newPacker(s.o.Bucket, nil, id+" "+s.o.Node+" "+strconv.FormatInt(time.Now().UnixNano(), 36)+" tables"); err != nil {
		return t.done, err
	}
	err = t.work(ctx, turn)
	for _, w := range []*packer{t.pack, t.tables} {
		w.close()
	}
	t.done.Bytes += t.pack.bytes + t.tables.bytes
	t.done.Puts += t.pack.number + t.tables.number
	return t.done, err
}

// enter writes BEGIN, or reads the one that is there.
func (t *taking) enter(ctx context.Context, id string) error {
	o := t.o
	if id == "" || strings.ContainsAny(id, "/\\ ") {
		return fmt.Errorf("backup: %q does not do as the name of a snapshot: it must not be empty, nor hold slashes or spaces", id)
	}
	t.begin = Begin{Cluster: o.Cluster, Snapshot: id, Partitions: o.Partitions, Leaves: o.Leaves}
	t.done.Puts++
	if err := Announce(ctx, o.Bucket, &t.begin, o.Patience); gcerrors.Code(err) == gcerrors.FailedPrecondition {
		if err := document(ctx, o.Bucket, beginKey(id), &t.begin); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if b := t.begin; b.Partitions != o.Partitions || b.Leaves != o.Leaves || b.Cluster != o.Cluster {
		return fmt.Errorf("backup: snapshot %s is one of cluster %q with %d partitions of %d leaves; this is %q with %d of %d: give each cluster its own bucket or prefix",
			id, b.Cluster, b.Partitions, b.Leaves, o.Cluster, o.Partitions, o.Leaves)
	}
	if own := o.Bucket.Key.ID(); t.begin.Key != own {
		return fmt.Errorf("backup: %w: snapshot %s was begun with key %q, and this node has %q: KAI_BACKUP_KEY must be the same on all nodes", ErrKey, id, t.begin.Key, own)
	}
	t.parent = map[int]Entry{}
	if t.begin.Parent == "" {
		return nil
	}
	// Without its parent a snapshot is larger, not worse.
	m, err := Open(ctx, o.Bucket, t.begin.Parent)
	if err != nil {
		o.Logger.Warn("earlier snapshot not readable: everything is uploaded", "snapshot", t.begin.Parent, "error", err)
		return ctx.Err()
	}
	for _, e := range m.Entries {
		t.parent[e.Partition] = e
	}
	return nil
}

func (t *taking) work(ctx context.Context, turn func(int) time.Duration) error {
	grew, most := time.Now(), 0 // when more partitions were there than before, and how many
	t.told.at, t.told.last = grew, grew
	var failed error // of a partition; another node may hold it
	for {
		covered, err := t.covered(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		if len(covered) > most {
			most, grew = len(covered), now
		}
		stands := now.Sub(grew) // for how long nobody had uploaded anything
		if len(covered) == t.o.Partitions {
			return t.complete(ctx, covered)
		}
		waits := false
		t.due = func(p int) bool {
			delay := turn(p)
			_, there := covered[p]
			if !there && stands < delay {
				waits = true
			}
			return !there && delay >= 0 && stands >= delay
		}
		for p := range t.o.Partitions {
			if t.leaves() {
				break
			}
			if !t.due(p) {
				continue
			}
			if err := t.upload(ctx, p); err != nil {
				if ctx.Err() != nil {
					return err
				}
				failed = fmt.Errorf("backup: partition %d: %w", p, err)
				t.o.Logger.Warn("partition not uploaded", "snapshot", t.begin.Snapshot, "partition", p, "error", err)
				waits = true
				break // look again what others did
			}
			switch {
			case time.Since(t.told.last) >= flushEvery: // with slow work, a pack may take long to fill
				err = t.flush(ctx)
			case t.pack.bytes-t.told.bytes >= tellBytes || time.Since(t.told.at) >= tellEvery:
				err = t.tell(ctx)
			}
			if err != nil {
				return err
			}
		}
		if err := t.flush(ctx); err != nil {
			return err
		}
		if m, err := Open(ctx, t.o.Bucket, t.begin.Snapshot); err == nil || !missing(err) {
			t.done.Manifest = m
			return err
		}
		if t.leaves() {
			return ErrLeft
		}
		if !waits && failed == nil {
			if covered, err = t.covered(ctx); err != nil {
				return err
			}
			if len(covered) == t.o.Partitions {
				continue
			}
		}
		if time.Now().After(t.begin.Expires) {
			return errors.Join(fmt.Errorf("backup: snapshot %s has expired with %d of %d partitions", t.begin.Snapshot, len(covered), t.o.Partitions), failed)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), failed)
		case <-t.o.Leave:
		case <-time.After(t.o.Look):
		}
	}
}

func (t *taking) leaves() bool {
	select {
	case <-t.o.Leave:
		return true
	default:
		return false
	}
}

// covered reads all parts: by partition, the first entry in the order of the parts' names.
func (t *taking) covered(ctx context.Context) (map[int]Entry, error) {
	covered := map[int]Entry{}
	dir := partsDir(t.begin.Snapshot)
	err := list(ctx, t.o.Bucket, dir, false, func(o *blob.ListObject) error {
		if n, ok := strings.CutPrefix(o.Key, dir+t.o.Node+"-"); ok {
			if n, err := strconv.Atoi(n); err == nil {
				t.parts = max(t.parts, n)
			}
		}
		var p Part
		if err := document(ctx, t.o.Bucket, o.Key, &p); errors.Is(err, ErrDamaged) {
			t.o.Logger.Warn("part is damaged: its partitions are uploaded again", "part", o.Key, "error", err)
			return nil
		} else if err != nil {
			return err
		}
		for _, e := range p.Entries {
			if _, there := covered[e.Partition]; !there && e.Partition >= 0 && e.Partition < t.o.Partitions {
				covered[e.Partition] = e
			}
		}
		return nil
	})
	return covered, err
}

// A part is written once packs of tellBytes are, or tellEvery has passed: what no part names is uploaded again by whoever goes on. At least every
// flushEvery, or with the next partition, there is one: by them, others see that this node does what is its turn.
const (
	tellBytes  = 16 * packSize
	tellEvery  = 10 * time.Second
	flushEvery = 30 * time.Second
)

// flush writes what the packers hold, and a part that names all partitions that are whole.
func (t *taking) flush(ctx context.Context) error {
	if len(t.ready) == 0 {
		return nil
	}
	if err := errors.Join(t.endFrame(ctx), t.pack.begin(ctx)); err != nil {
		return err
	}
	return t.tell(ctx)
}

// tell writes a part that names the partitions whose packs are written, or named, by now, if there are any.
func (t *taking) tell(ctx context.Context) error {
	t.told.bytes, t.told.at = t.pack.bytes, time.Now()
	ready := t.ready
	if n := slices.IndexFunc(ready, func(b *built) bool {
		return slices.ContainsFunc(b.frames, func(r *Ref) bool { return r.Pack == PackID{} })
	}); n >= 0 {
		ready = ready[:n]
	}
	if len(ready) == 0 {
		return nil
	}
	for _, b := range ready {
		if b.kept {
			continue
		}
		b.settle(t.pack.sizes)
		if err := t.tables.add(ctx, b.encode(), &b.ref); err != nil {
			return err
		}
	}
	// A pack that is named may not be written yet.
	if err := errors.Join(t.tables.flush(ctx), t.pack.kept()); err != nil {
		return err
	}
	part := Part{Format: Format, Snapshot: t.begin.Snapshot, Node: t.o.Node}
	for _, b := range ready {
		if !b.kept {
			b.entry.Table = b.ref
			b.entry.Uploaded += b.ref.Length
			b.entry.Packs = append(b.entry.Packs, Pack{b.ref.Pack, t.tables.sizes[b.ref.Pack]})
		}
		part.Entries = append(part.Entries, b.entry)
	}
	content, err := seal(part)
	if err != nil {
		return err
	}
	for {
		t.parts++
		t.done.Puts++
		err := put(ctx, t.o.Bucket, partsDir(t.begin.Snapshot)+t.o.Node+"-"+strconv.Itoa(t.parts), content, true)
		if gcerrors.Code(err) == gcerrors.FailedPrecondition {
			continue // of an earlier life, which the list did not show
		}
		if err != nil {
			return err
		}
		break
	}
	for _, e := range part.Entries {
		t.done.Partitions++
		t.done.Records += e.Records
	}
	t.done.Bytes += int64(len(content))
	t.ready = t.ready[len(ready):]
	t.told.last = time.Now()
	return nil
}

// complete writes the manifest, or reads the one of a node that was sooner.
func (t *taking) complete(ctx context.Context, covered map[int]Entry) error {
	ctx, span := otel.Tracer("kai").Start(ctx, "snapshot.manifest")
	defer span.End()
	m := &Manifest{Begin: t.begin, Completed: time.Now().UTC()}
	m.Format = Format // whoever began it
	for _, e := range covered {
		m.Entries = append(m.Entries, e)
	}
	slices.SortFunc(m.Entries, func(a, b Entry) int { return cmp.Compare(a.Partition, b.Partition) })
	content, err := seal(m)
	if err != nil {
		return err
	}
	t.done.Puts++
	err = put(ctx, t.o.Bucket, manifestKey(t.begin.Snapshot), content, true)
	switch {
	case err == nil:
		t.done.Manifest = m
		t.done.Bytes += int64(len(content))
		return nil
	case gcerrors.Code(err) != gcerrors.FailedPrecondition:
		return err
	}
	t.done.Manifest, err = Open(ctx, t.o.Bucket, t.begin.Snapshot)
	return err
}
