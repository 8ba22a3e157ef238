// Package repair brings replicas together without being asked: each member of a partition compares
// what it holds with the others, and takes over what it lacks (anti-entropy; Dynamo, section 4.7). See
// DESIGN.md.
package repair

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
	// Chosen returns the state of a key if a write quorum holds it; if not, it brings the replicas
	// together by a quorum read.
	Chosen func(key []byte) (enc []byte, ok bool)
	// Learn has this node's replica store a chosen state, whatever it promised, unless it has a newer one.
	// It may wait for the disk.
	Learn func(call *message.Call)
	// Timeout of one message.
	Timeout time.Duration
	// Pause is the time between two passes over all partitions; a third of it after one that found
	// differences, and at most a second once a member that was away is back.
	Pause time.Duration
	// Rest is how long a pass rests after each partition, in multiples of the time it took, but for 10 s at
	// most: 9 makes it use a tenth of the time.
	Rest   int
	Logger *slog.Logger
}

// Repairer is one node's part. Its methods are safe for concurrent use.
type Repairer struct {
	o        Options
	counters Counters
	away     map[ring.NodeID]bool // members that the pass could not ask; the pass' own
	missed   int64                // as Counters.Missed, of the pass that goes on
}

// Counters count what was done since start; Diverged is a gauge.
type Counters struct {
	// Compared counts comparisons with another replica, Taken the records taken over, Reconciled those that
	// took a quorum read, Failed the comparisons that could not be ended.
	Compared, Taken, Reconciled, Failed atomic.Uint64
	// Passes counts the passes that have ended.
	Passes atomic.Uint64
	// Diverged is how many leaves differed, over all comparisons of the last pass.
	Diverged atomic.Int64
	// Missed is how many comparisons the last pass could not make, or not end: Diverged says nothing of those.
	Missed atomic.Int64
}

// New makes a repairer; it starts nothing.
func New(o Options) *Repairer { return &Repairer{o: o} }

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

// backPoll is how often a node looks whether a member that was away is back.
const backPoll = time.Second

// pause waits until the next pass is due. One that could not ask a member is not worth waiting for, once
// the member is there again: both have missed what the other did meanwhile. And one that found differences
// is worth another look soon: were they a moment's, or is a member still behind?
func (r *Repairer) pause(ctx context.Context) {
	pause := r.o.Pause
	if r.counters.Diverged.Load() > 0 {
		pause /= 3
	}
	for due := time.Now().Add(pause); ctx.Err() == nil && time.Now().Before(due); {
		sleep(ctx, min(backPoll, time.Until(due)))
		for id := range r.away {
			if r.o.Peer(id).Healthy() {
				return
			}
		}
	}
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
		// While a partition moves, its transfer does this, and more.
		if ctx.Err() != nil || len(c.Next) > 0 || !slices.Contains(c.Members, r.o.Self) {
			continue
		}
		began := time.Now()
		own, err := r.sums(p, c, r.o.Self)
		if err != nil {
			r.failed(p, r.o.Self, err)
			continue
		}
		for _, id := range c.Members {
			if id == r.o.Self {
				continue
			}
			if !r.o.Peer(id).Healthy() {
				r.away[id] = true
				r.missed++
				continue
			}
			n, err := r.compare(ctx, p, c, own, id)
			if diverged += int64(n); err != nil {
				r.failed(p, id, err)
			}
		}
		sleep(ctx, min(time.Duration(r.o.Rest)*time.Since(began), maxRest))
	}
	r.counters.Missed.Store(r.missed)
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
func (r *Repairer) compare(ctx context.Context, p ring.Partition, c ring.Configuration, own []byte, id ring.NodeID) (diverged int, err error) {
	r.counters.Compared.Add(1)
	theirs, err := r.sums(p, c, id)
	if err != nil {
		return 0, err
	}
	var leaves message.LeafSet
	for leaf := range message.Leaves {
		if binary.LittleEndian.Uint64(own[8*leaf:]) != binary.LittleEndian.Uint64(theirs[8*leaf:]) {
			leaves.Add(leaf)
			diverged++
		}
	}
	if diverged == 0 {
		return 0, nil
	}
	return diverged, r.take(ctx, p, c, id, leaves)
}

func (r *Repairer) sums(p ring.Partition, c ring.Configuration, id ring.NodeID) ([]byte, error) {
	reply := r.send(id, message.Request{Kind: message.Sums, Partition: p, Epoch: c.Epoch})
	if reply.Status != message.OK || len(reply.Items) != 8*message.Leaves {
		return nil, fmt.Errorf("sums of node %s: %s, %d bytes", id, reply.Status, len(reply.Items))
	}
	return reply.Items, nil
}

// take goes through the records of leaves that another replica holds.
func (r *Repairer) take(ctx context.Context, p ring.Partition, c ring.Configuration, id ring.NodeID, leaves message.LeafSet) error {
	var after []byte
	for ctx.Err() == nil {
		reply := r.send(id, message.Request{Kind: message.Transfer, Partition: p, Epoch: c.Epoch, Key: after, Items: leaves[:]})
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
			err = fmt.Errorf("damaged behind %q", last)
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
	var ok bool
	switch reply := r.send(r.o.Self, q); reply.Status {
	case message.OK:
		r.counters.Taken.Add(1)
	case message.Nack:
		// Promised to a later round, or to nobody that is left: a restarted node takes every promise it may
		// have given for given. What is chosen may come all the same: that round has met it, or will.
		r.counters.Reconciled.Add(1)
		if q.Record, ok = r.o.Chosen(key); ok {
			w := answer(make(chan message.Reply, 1))
			r.o.Learn(&message.Call{Request: q, Completion: w})
			<-w
		}
	default:
		return fmt.Errorf("own replica: %s", reply.Status)
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
