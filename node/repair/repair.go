// Package repair brings replicas together without being asked: each member of a partition compares
// what it holds with the others, and takes over what it lacks (anti-entropy; Dynamo, section 4.7). See
// DESIGN.md.
package repair

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Replica takes messages for one node: the local replica, or the link to a peer.
type Replica interface {
	Send(call *message.Call)
	Flush()
	Healthy() bool
}

// Options of New.
type Options struct {
	Self       ring.NodeID
	Partitions int
	// Configuration is what this node knows of a partition.
	Configuration func(ring.Partition) ring.Configuration
	// Peer is the way to a node, this one included.
	Peer func(ring.NodeID) Replica
	// Chosen returns the state of a key if a write quorum holds it; if not, it first has
	// it written anew.
	Chosen func(key []byte) (enc []byte, ok bool)
	// Rewrite has the state of key written anew, at a ballot of today. It blocks like Chosen.
	Rewrite func(key []byte)
	Local   Local
	// Drop forgets some records of a partition that this node is no member of, and reports whether there
	// may be more. It waits for the disk.
	Drop func(p ring.Partition) (more bool, err error)
	// PurgeAge tells how long records must have been dead before they are purged; nil, 0 or less: they are not.
	PurgeAge func() time.Duration
	// Hints are those that HandOff hands off.
	Hints *Hints
	// Timeout of one message.
	Timeout time.Duration
	// Pause is the time between two passes over all partitions; a third of it after one that found
	// differences, and at most a second once a member that was away is back.
	Pause time.Duration
	// Rest is how long a pass rests after each partition, in multiples of the time it took, but for 10 s at
	// most: 9 makes it use a tenth of the time.
	Rest   int
	Logger *slog.Logger
	// Without switches safety rules off. Only the simulator sets it.
	Without Rule
}

// Rule names a safety rule that the simulator can switch off, to show that it would notice.
type Rule uint8

// RulePurgeAll: all members confirm that a record is dead before it is purged.
const RulePurgeAll Rule = 1

// Local is this node's own replica; see replica.Replica.
type Local interface {
	// Learn stores a chosen state, whatever was promised, unless there is a newer one, or it may have been
	// purged. It may wait for the disk.
	Learn(call *message.Call)
	// Mortals changes when a record of p is written that is dead, or expires.
	Mortals(p ring.Partition) uint32
	// Dead lists records behind the key after that have been dead for age. It reads the disk.
	Dead(p ring.Partition, after []byte, age time.Duration, limit int) (message.Dead, error)
	PurgeFence(p ring.Partition) record.Ballot
	// Page calls fn with records of p behind a key that lie in leaves, until there are limit bytes: then it returns the last key. It reads the disk; fn must not block.
	Page(p ring.Partition, epoch uint32, after []byte, leaves *message.LeafSet, limit int, fn func(hash uint64, key, enc []byte) error) (last []byte, err error)
}

// Repairer is one node's part. Its methods are safe for concurrent use.
type Repairer struct {
	o        Options
	counters Counters
	purges   []purgeState         // by partition; Pass's own
	wake     chan struct{}        // capacity 1
	pulls    atomic.Int32         // Hints that are worked on
	away     map[ring.NodeID]bool // members that the pass could not ask; the pass' own
	missed   int64                // as Counters.Missed, of the pass that goes on
	rested   time.Duration        // between pages of purges, in all; the pass' own
}

// Counters count what was done since start; Diverged is a gauge.
type Counters struct {
	// Compared counts comparisons with another replica, Taken the records taken over, Reconciled those that
	// took a quorum read, Failed the comparisons that could not be ended.
	Compared, Taken, Reconciled, Failed atomic.Uint64
	// Purged counts the dead records that were forgotten, by this node's doing.
	Purged atomic.Uint64
	// Passes counts the passes that have ended.
	Passes atomic.Uint64
	// Diverged is how many leaves differed, over all comparisons of the last pass.
	Diverged atomic.Int64
	// Missed is how many comparisons the last pass could not make, or not end: Diverged says nothing of those.
	Missed atomic.Int64
}

// New makes a repairer; it starts nothing.
func New(o Options) *Repairer {
	return &Repairer{o: o, purges: make([]purgeState, o.Partitions), wake: make(chan struct{}, 1)}
}

// Counters returns the counters.
func (r *Repairer) Counters() *Counters { return &r.counters }

// Run passes over the partitions until ctx ends.
func (r *Repairer) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		r.counters.Diverged.Store(r.Pass(ctx))
		r.counters.Passes.Add(1)
		r.pause(ctx)
	}
	return nil
}

// maxRest bounds the rest after a partition. What took longer than a few seconds was mostly a wait, for a peer
// that hangs or for this node itself: one that hung for two minutes in the middle of a comparison would rest for 18.
const maxRest = 10 * time.Second

// Pass compares every partition of this node with each of its other members, once, and tells how many
// leaves differed.
func (r *Repairer) Pass(ctx context.Context) (diverged int64) {
	r.away, r.missed = map[ring.NodeID]bool{}, 0
	for p := range ring.Partition(r.o.Partitions) {
		c := r.o.Configuration(p)
		if ctx.Err() != nil {
			break
		}
		if !c.Has(r.o.Self) {
			r.drop(ctx, p)
			continue
		}
		// While a partition moves, its transfer does this, and more.
		if len(c.Next) > 0 || !slices.Contains(c.Members, r.o.Self) {
			continue
		}
		began, rested := time.Now(), r.rested
		diverged += int64(r.look(ctx, p, c))
		worked := time.Since(began) - (r.rested - rested)
		sleep(ctx, min(time.Duration(r.o.Rest)*worked, maxRest))
	}
	r.counters.Missed.Store(r.missed)
	return diverged
}

// drop forgets what this node has of a partition that moved away.
func (r *Repairer) drop(ctx context.Context, p ring.Partition) {
	for more := true; more && ctx.Err() == nil; {
		began := time.Now()
		var err error
		if more, err = r.o.Drop(p); err != nil {
			r.o.Logger.Debug("partition not dropped", "partition", p, "error", err)
			return
		}
		if more {
			sleep(ctx, time.Duration(r.o.Rest)*time.Since(began))
		}
	}
}

// look compares one partition with each of its other members.
func (r *Repairer) look(ctx context.Context, p ring.Partition, c ring.Configuration) (diverged int) {
	var others []ring.NodeID
	for _, id := range c.Members {
		switch {
		case id == r.o.Self:
		case r.o.Peer(id).Healthy():
			others = append(others, id)
		default:
			r.away[id] = true
			r.missed++
		}
	}
	if len(others) == 0 {
		return 0
	}
	own, err := r.sums(p, c, r.o.Self, nil)
	if err != nil {
		r.failed(p, r.o.Self, err)
		return 0
	}
	for _, id := range others {
		n, err := r.compare(ctx, p, c, own, id)
		if diverged += n; err != nil {
			r.failed(p, id, err)
		}
	}
	if len(others) == len(c.Members)-1 {
		if err := r.purge(ctx, p, c, diverged); err != nil {
			r.o.Logger.Debug("purge failed", "partition", p, "error", err)
		}
	}
	return diverged
}

func (r *Repairer) failed(p ring.Partition, id ring.NodeID, err error) {
	r.counters.Failed.Add(1)
	r.missed++
	r.o.Logger.Debug("comparison failed", "partition", p, "peer", id, "error", err)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// compare takes over what another replica has newer than what own, the sums of this one, stand for, and tells how many leaves differed.
func (r *Repairer) compare(ctx context.Context, p ring.Partition, c ring.Configuration, own []uint64, id ring.NodeID) (diverged int, err error) {
	r.counters.Compared.Add(1)
	theirs, err := r.sums(p, c, id, own)
	if err != nil {
		return 0, err
	}
	var leaves message.LeafSet
	for leaf := range theirs {
		if own[leaf] != theirs[leaf] {
			leaves.Add(leaf)
			diverged++
		}
	}
	if diverged == 0 {
		return 0, nil
	}
	taken, reconciled := r.counters.Taken.Load(), r.counters.Reconciled.Load()
	ctx, end := flight.Work(ctx, "repair", "", nil, attribute.Int("kai.partition", int(p)), attribute.String("kai.peer.id", string(id)), attribute.Int("kai.diverged_leaves", diverged))
	err = r.take(ctx, p, c, id, leaves)
	end(err, attribute.Int64("kai.records.taken", int64(r.counters.Taken.Load()-taken)), attribute.Int64("kai.records.reconciled", int64(r.counters.Reconciled.Load()-reconciled)))
	return diverged, err
}

// sums asks a replica for its sums; nil if they are the same as own.
func (r *Repairer) sums(p ring.Partition, c ring.Configuration, id ring.NodeID, own []uint64) (sums []uint64, err error) {
	q := message.Request{Kind: message.Sums, Partition: p, Epoch: c.Epoch}
	if own != nil {
		q.Items = binary.LittleEndian.AppendUint64(nil, message.Root(own))
	}
	reply := r.send(id, q)
	same := own != nil && len(reply.Items) == 0
	if reply.Status != message.OK || !same && len(reply.Items) != 8*message.Leaves {
		return nil, fmt.Errorf("sums of node %s: %s, %d bytes", id, reply.Status, len(reply.Items))
	}
	for items := reply.Items; len(items) > 0; items = items[8:] {
		sums = append(sums, binary.LittleEndian.Uint64(items))
	}
	return sums, nil
}

// take goes through the records of leaves that another replica holds.
func (r *Repairer) take(ctx context.Context, p ring.Partition, c ring.Configuration, id ring.NodeID, leaves message.LeafSet) error {
	var after []byte
	for ctx.Err() == nil {
		reply := r.send(id, message.Request{Kind: message.Transfer, Partition: p, Epoch: c.Epoch, Key: after, Items: leaves[:], Trace: flight.Of(ctx)})
		rows, more, ok := message.OpenPage(reply.Items)
		if reply.Status != message.OK || !ok {
			return fmt.Errorf("records of node %s: %s", id, reply.Status)
		}
		last, err := r.offerAll(p, c, rows)
		if err != nil {
			return fmt.Errorf("records of node %s: %w", id, err)
		}
		if !more {
			return nil
		}
		if len(last) == 0 {
			return fmt.Errorf("records of node %s: empty page", id)
		}
		after = last
	}
	return ctx.Err()
}

// offersAtOnce bounds the records that are offered together: they share commits then. One after the other, each
// waited for the disk, and a node that had missed 5,000 writes took ten minutes.
const offersAtOnce = 32

// offerAll offers the records of a page, and returns the last key.
func (r *Repairer) offerAll(p ring.Partition, c ring.Configuration, rows []byte) (last []byte, err error) {
	var wait sync.WaitGroup
	var failed atomic.Pointer[error]
	room := make(chan struct{}, offersAtOnce)
	for len(rows) > 0 && failed.Load() == nil {
		key, enc, rest, ok := message.NextRow(rows)
		if !ok {
			err = errors.New("a damaged record")
			break
		}
		rows, last = rest, key
		room <- struct{}{}
		wait.Go(func() {
			if err := r.offer(p, c, key, enc); err != nil {
				failed.Store(&err)
			}
			<-room
		})
	}
	wait.Wait()
	if e := failed.Load(); e != nil && err == nil {
		err = *e
	}
	return last, err
}

// offer has this node's replica accept a record of another, if it is newer. It is an accept like any
// other and obeys promises: a state that few accepted must not come to a quorum beside a round that
// was promised not to meet it.
func (r *Repairer) offer(p ring.Partition, c ring.Configuration, key, enc []byte) error {
	q := message.Request{Kind: message.Read, Digest: true, Partition: p, Epoch: c.Epoch, Hash: ring.Hash(key), Key: key}
	have := r.send(r.o.Self, q)
	if have.Status == message.OK && !have.Ballot.Less(record.PeekBallot(enc)) {
		return nil
	}
	q.Kind, q.Digest, q.Record = message.Accept, false, enc
	switch reply := r.send(r.o.Self, q); reply.Status {
	case message.OK:
		r.counters.Taken.Add(1)
	case message.Nack:
		return r.reconcile(p, q, have)
	case message.NotVoting:
		if r.purgedHere(p, q.Record, have) {
			return nil
		}
		return fmt.Errorf("own replica: %s", reply.Status)
	default:
		return fmt.Errorf("own replica: %s", reply.Status)
	}
	return nil
}

// purgedHere reports whether a record of another replica is dead, and this one has forgotten it.
func (r *Repairer) purgedHere(p ring.Partition, enc []byte, have message.Reply) bool {
	dead, _ := record.Dead(enc, uint32(time.Now().Unix()))
	return dead && have.Ballot.IsZero() && !r.o.Local.PurgeFence(p).Less(record.PeekBallot(enc))
}

// reconcile deals with a record that this node's replica must not accept: promised to a later round, or to nobody that
// is left, since a restarted node takes every promise it may have given for given; or perhaps purged.
func (r *Repairer) reconcile(p ring.Partition, q message.Request, have message.Reply) error {
	if r.purgedHere(p, q.Record, have) {
		return nil // who still holds it will purge it, too
	}
	r.counters.Reconciled.Add(1)
	// What is chosen may come all the same: the round that was promised has met it, or will.
	var ok bool
	if q.Record, ok = r.o.Chosen(q.Key); !ok {
		return nil
	}
	w := answer(make(chan message.Reply, 1))
	r.o.Local.Learn(&message.Call{Request: q, Completion: w})
	if reply := <-w; reply.Status == message.Nack {
		r.o.Rewrite(q.Key) // below the purge fence: it comes at a ballot above
	}
	return nil
}

// send asks a node and waits; the reply's slices are copies.
func (r *Repairer) send(id ring.NodeID, q message.Request) message.Reply {
	q.Timeout = r.o.Timeout
	w := answer(make(chan message.Reply, 1))
	peer := r.o.Peer(id)
	peer.Send(&message.Call{Request: q, Completion: w})
	peer.Flush()
	return <-w
}

type answer chan message.Reply

// Done implements message.Completion.
func (a answer) Done(call *message.Call) {
	reply := call.Reply
	reply.Record, reply.Items = slices.Clone(reply.Record), slices.Clone(reply.Items)
	a <- reply
}
