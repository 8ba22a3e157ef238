package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"golang.org/x/sync/semaphore"

	"kai/backup"
	"kai/node/flight"
	"kai/node/message"
	"kai/node/placement"
	"kai/node/record"
	"kai/node/ring"
)

// A cluster may begin with a snapshot: its founding names it, and each founder loads what it is to hold before it votes. All do it alike: the same
// states at the same ballots, which are older than whatever is proposed later, as if all of them had accepted them at the founding's epoch. One that is late finds
// what was written meanwhile at the others, like any replica that has missed it.

const (
	// begunName is the mark that this node holds what its cluster began with.
	begunName = "begun"
	// beginAgain is the time between two attempts.
	beginAgain = 10 * time.Second
	// beginTell is the time between two lines of progress.
	beginTell = 5 * time.Second
	// beginBytes bounds what is on its way to the disk.
	beginBytes = 32 << 20
)

// begin loads what the founding begins with, unless it did; it tries until it has, or ctx ends.
func (n *node) begin(ctx context.Context, d *dataPath) error {
	f := d.founding
	if f.Snapshot == "" || !slices.ContainsFunc(f.Nodes, func(o ring.Node) bool { return o.ID == n.identity.Node }) {
		return nil
	}
	if !d.replica.Healthy() {
		return nil // it votes in nothing anyway: it has ended, or may have forgotten what it knew
	}
	if mark, err := n.store.Meta(begunName); err != nil || len(mark) > 0 {
		return err
	}
	for {
		l := &beginning{n: n, d: d, room: newRoom()}
		inner, end := flight.Work(ctx, "bootstrap", "bootstrap "+f.ClusterID, nil, attribute.String("kai.snapshot", f.Snapshot), attribute.String("kai.node.id", string(n.identity.Node)))
		err := l.run(inner)
		end(err, attribute.Int64("kai.records", l.records.Load()), attribute.Int64("kai.bytes", l.bytes.Load()))
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			done := make(chan error, 1)
			n.store.PutMeta(begunName, []byte(f.Snapshot), told(func(err error) { done <- err }))
			return <-done
		}
		why := fmt.Sprintf("cannot load snapshot %s, which the cluster begins with: %v", f.Snapshot, err)
		n.loading.Store(&why)
		n.log.Error("the cluster's snapshot cannot be loaded: this node does not vote; it tries again", "snapshot", f.Snapshot, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(beginAgain):
		}
	}
}

// beginning is one attempt.
type beginning struct {
	n              *node
	d              *dataPath
	room           *semaphore.Weighted // for bytes on their way
	wait           sync.WaitGroup
	records, bytes atomic.Int64
	failed         atomic.Pointer[string]
}

func newRoom() *semaphore.Weighted { return semaphore.NewWeighted(beginBytes) }

func (l *beginning) run(ctx context.Context) error {
	n, f := l.n, l.d.founding
	if n.bucket == nil {
		return errors.New("set KAI_BACKUP_URL, and KAI_BACKUP_KEY if it is encrypted")
	}
	b, err := n.bucket.open(ctx)
	if err != nil {
		return err
	}
	m, err := backup.Open(ctx, b, f.Snapshot)
	if err != nil {
		n.bucket.close()
		return err
	}
	release, err := backup.Pin(ctx, b, m, "founder-"+string(n.identity.Node))
	if err != nil {
		return err
	}
	defer release()
	first := placement.Configurations(f)
	total := int64(0)
	want := func(old int) bool {
		from, end := overlap(old, m.Partitions, f.Partitions)
		return slices.ContainsFunc(first[from:end], func(c ring.Configuration) bool { return c.Has(n.identity.Node) })
	}
	for p, e := range m.Entries {
		if want(p) {
			total += e.Bytes
		}
	}
	began := time.Now()
	ended := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() { l.tell(ended, began, total) })
	err = l.load(ctx, b, m, want, first)
	l.wait.Wait()
	close(ended)
	telling.Wait()
	if why := l.failed.Load(); err == nil && why != nil {
		err = errors.New(*why)
	}
	if err == nil {
		took := time.Since(began)
		n.log.Info("snapshot loaded", "snapshot", f.Snapshot, "records", l.records.Load(), "bytes", l.bytes.Load(), "took", took.Round(time.Millisecond).String())
	}
	return err
}

// load brings in the records of the partitions that are wanted: as tables, as far as possible, and the others as if another node had them to tell.
func (l *beginning) load(ctx context.Context, b *backup.Bucket, m *backup.Manifest, want func(old int) bool, first []ring.Configuration) error {
	build, err := l.n.store.Build()
	if err != nil {
		return err
	}
	if build != nil {
		left, err := l.build(ctx, b, m, want, first, build)
		if err != nil {
			build.Discard()
			return err
		}
		if err := build.Finish(); err != nil {
			build.Discard()
			return err
		}
		want = func(old int) bool { return left[old] }
	}
	_, err = backup.Restore(ctx, b, m, want, false, func(ctx context.Context, _ int, items []backup.Item) error {
		for _, it := range items {
			if err := l.take(ctx, first, it.Key, it.Value); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// overlap is which partitions, of one number, hold the keys of partition p of another; both numbers are powers of two.
func overlap(p, of, now int) (from, end int) {
	if now >= of {
		k := now / of
		return p * k, (p + 1) * k
	}
	from = p / (of / now)
	return from, from + 1
}

// admit tells where a record belongs, if this node is to hold it, and makes it one of the founding's epoch.
func (l *beginning) admit(first []ring.Configuration, key, enc []byte) (p ring.Partition, hash uint64, mine bool, err error) {
	if record.Internal(key) {
		return p, hash, false, nil // who held what in the old cluster
	}
	if err := record.Check(key, enc); err != nil {
		return p, hash, false, fmt.Errorf("a record: %w", err) // keys are not logged
	}
	if dead, expires := record.Dead(enc, 0); dead && expires == 0 {
		return p, hash, false, nil // nobody holds anything older
	}
	if most := int(l.n.cfg.MaxValueBytes) + record.Overhead; len(enc) > most {
		return p, hash, false, fmt.Errorf("a record has %d bytes: set KAI_MAX_VALUE_BYTES to what the cluster had before", len(enc))
	}
	hash = ring.Hash(key)
	p = ring.PartitionOf(hash, len(first))
	if !first[p].Has(l.n.identity.Node) || !l.d.table.Configuration(p).Has(l.n.identity.Node) {
		return p, hash, false, nil
	}
	record.Reballot(key, enc, record.Ballot{Epoch: first[p].Epoch, Stamp: record.PeekBallot(enc).Stamp})
	return p, hash, true, nil
}

// take learns a record if this node is to hold it, and does not wait for the disk, unless much is on its way there.
func (l *beginning) take(ctx context.Context, first []ring.Configuration, key, enc []byte) error {
	if why := l.failed.Load(); why != nil {
		return errors.New(*why)
	}
	p, hash, mine, err := l.admit(first, key, enc)
	if err != nil || !mine {
		return err
	}
	size := int64(len(key) + len(enc))
	if err := l.room.Acquire(ctx, size); err != nil {
		return err
	}
	l.records.Add(1)
	l.bytes.Add(size)
	l.wait.Add(1)
	call := &message.Call{Completion: learnt{l, size}}
	call.Request = message.Request{Kind: message.Accept, Partition: p, Epoch: l.d.table.Configuration(p).Epoch, Hash: hash, Key: key, Record: enc}
	l.d.replica.Learn(call)
	return nil
}

// learnt is told when a record is durable.
type learnt struct {
	l    *beginning
	size int64
}

// Done implements message.Completion.
func (t learnt) Done(call *message.Call) {
	if s := call.Reply.Status; s != message.OK {
		why := fmt.Sprintf("a record was not stored: %s", s)
		t.l.failed.CompareAndSwap(nil, &why)
	}
	t.l.room.Release(t.size)
	t.l.wait.Done()
}

// tell says how far it is until ended is closed.
func (l *beginning) tell(ended <-chan struct{}, began time.Time, total int64) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	told := began
	for {
		done := l.bytes.Load()
		text := fmt.Sprintf("loads snapshot %s, which the cluster begins with: %d records, %d MB", l.d.founding.Snapshot, l.records.Load(), done>>20)
		l.n.loading.Store(&text)
		if time.Since(told) >= beginTell {
			told = time.Now()
			l.n.log.Info("snapshot is being loaded", "snapshot", l.d.founding.Snapshot, "records", l.records.Load(), "bytes", done, "of_at_most", total,
				"bytes_per_second", int64(float64(done)/time.Since(began).Seconds()))
		}
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}
