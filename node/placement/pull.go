package placement

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// pull takes over p from a read quorum of the old members of the joint configuration c, and marks it as
// pulled. The state of a key that counted before the move is at one of them, at least. The first one gives all it
// holds, unless a snapshot did, the others what differs from that. What was pulled stays when the pull is interrupted; it begins anew.
func (m *Mover) pull(ctx context.Context, p ring.Partition, c ring.Configuration) error {
	if !needsPull(c, m.o.Self, m.o.Quorum) {
		return m.mark(p, c.Epoch, record.Ballot{})
	}
	m.o.Pacer.Spend(ctx, PartitionCost)
	need := m.o.Quorum.For(len(c.Members)).R
	var failed error
	var fence record.Ballot
	whole := m.preload(ctx, p, c)
	for _, id := range m.sources(c.Members) {
		if need == 0 {
			break
		}
		var f record.Ballot
		var err error
		if whole {
			f, err = m.pullRest(ctx, p, c, id)
		} else {
			f, err = m.pullFrom(ctx, p, c, id, nil)
			whole = err == nil
		}
		if err != nil {
			failed = err
			continue
		}
		fence = record.Ballot{Epoch: max(fence.Epoch, f.Epoch), Stamp: max(fence.Stamp, f.Stamp)}
		need--
	}
	if need > 0 {
		return fmt.Errorf("%d more old members of partition %d needed: %w", need, p, failed)
	}
	if err := m.mark(p, c.Epoch, fence); err != nil {
		return err
	}
	m.counters.Pulled.Add(1)
	return nil
}

// lookAgain is how long a write that was under way at one of two nodes needs to be at the other.
const lookAgain = 5 * time.Millisecond

// pullRest takes the records of p that a node holds in leaves that it does not hold alike with this one. Most that
// differ do so for the moment of a write: they are looked at twice.
func (m *Mover) pullRest(ctx context.Context, p ring.Partition, c ring.Configuration, id ring.NodeID) (fence record.Ballot, err error) {
	var leaves message.LeafSet
	for try := range 2 {
		own, _, err := m.sums(ctx, p, c, m.o.Self)
		if err != nil {
			return fence, err
		}
		theirs, f, err := m.sums(ctx, p, c, id)
		if err != nil {
			return fence, err
		}
		fence = f
		var now message.LeafSet
		for leaf := range theirs {
			if own[leaf] != theirs[leaf] && (try == 0 || leaves.Has(leaf)) {
				now.Add(leaf)
			}
		}
		if leaves = now; leaves == (message.LeafSet{}) {
			return fence, nil
		}
		if try == 0 {
			time.Sleep(lookAgain)
		}
	}
	f, err := m.pullFrom(ctx, p, c, id, leaves[:])
	return record.Ballot{Epoch: max(fence.Epoch, f.Epoch), Stamp: max(fence.Stamp, f.Stamp)}, err
}

// sums asks a node for the sums of p's leaves, and its purge fence.
func (m *Mover) sums(ctx context.Context, p ring.Partition, c ring.Configuration, id ring.NodeID) (sums [message.Leaves]uint64, fence record.Ballot, err error) {
	reply := m.request(ctx, c, id, message.Request{Kind: message.Sums, Partition: p, Epoch: c.Epoch})
	if reply.Status != message.OK || len(reply.Items) != 8*message.Leaves {
		return sums, fence, fmt.Errorf("sums of partition %d from %s: %s", p, id, reply.Status)
	}
	for leaf := range sums {
		sums[leaf] = binary.LittleEndian.Uint64(reply.Items[8*leaf:])
	}
	return sums, reply.Ballot, nil
}

// requestTries bounds how often a node is asked the same.
const requestTries = 6

// request is send, to a node that may not have adopted c yet, since it was told at the same time as this one, or that
// lost the question. Who gave up at once would take over again from others what it has.
func (m *Mover) request(ctx context.Context, c ring.Configuration, id ring.NodeID, q message.Request) message.Reply {
	for try, pause := 1, askPause; ; try, pause = try+1, 2*pause {
		reply := m.send(id, q)
		behind := reply.Status == message.WrongEpoch && reply.Configuration.Epoch < c.Epoch
		lost := (reply.Status == message.TimedOut || reply.Status == message.Busy) && m.o.Peer(id).Healthy()
		if !behind && !lost || try == requestTries {
			return reply
		}
		if behind {
			m.tell(q.Partition, c, id)
		}
		select {
		case <-ctx.Done():
			return reply
		case <-time.After(pause):
		}
	}
}

// sources are the old members, this node first, then healthy ones.
func (m *Mover) sources(members []ring.NodeID) []ring.NodeID {
	rank := func(id ring.NodeID) int {
		switch {
		case id == m.o.Self:
			return 0
		case m.o.Peer(id).Healthy():
			return 1
		}
		return 2
	}
	sorted := slices.Clone(members)
	slices.SortStableFunc(sorted, func(a, b ring.NodeID) int { return rank(a) - rank(b) })
	return sorted
}

func (m *Mover) mark(p ring.Partition, epoch uint32, fence record.Ballot) error {
	done := make(chan error, 1)
	m.o.Local.MarkPulled(p, epoch, fence, func(err error) { done <- err })
	return <-done
}

// pullFrom takes all records of p that a node holds, or those of some leaves, page by page, and tells the node's
// purge fence.
func (m *Mover) pullFrom(ctx context.Context, p ring.Partition, c ring.Configuration, id ring.NodeID, leaves []byte) (fence record.Ballot, err error) {
	var after []byte
	for {
		if err := ctx.Err(); err != nil {
			return fence, err
		}
		if m.o.Configuration(p).Epoch != c.Epoch {
			return fence, fmt.Errorf("partition %d has moved on", p)
		}
		reply := m.request(ctx, c, id, message.Request{Kind: message.Transfer, Partition: p, Epoch: c.Epoch, Key: after, Items: leaves, Trace: flight.Of(ctx)})
		if reply.Status != message.OK {
			return fence, fmt.Errorf("transfer of partition %d from %s: %s", p, id, reply.Status)
		}
		rows, more, ok := message.OpenPage(reply.Items)
		if !ok {
			return fence, fmt.Errorf("transfer of partition %d from %s: bad page", p, id)
		}
		last, records, err := m.store(message.Accept, p, c.Epoch, rows)
		if err != nil {
			return fence, fmt.Errorf("transfer of partition %d from %s: %w", p, id, err)
		}
		if id != m.o.Self {
			m.counters.Records.Add(uint64(records))
			m.counters.Bytes.Add(uint64(len(rows)))
		}
		if !more {
			m.o.Pacer.Charge(len(reply.Items))
			return reply.Ballot, nil
		}
		m.o.Pacer.Spend(ctx, len(reply.Items))
		if len(last) == 0 {
			return fence, fmt.Errorf("transfer of partition %d from %s: empty page", p, id)
		}
		after = last
	}
}

// store has this node's replica learn a page's records, for a transfer (Accept) or a Gather, and returns its last key and their number once all are durable.
func (m *Mover) store(kind message.Kind, p ring.Partition, epoch uint32, rows []byte) (last []byte, records int, err error) {
	w := &learning{status: message.OK}
	for len(rows) > 0 {
		key, enc, rest, ok := message.NextRow(rows)
		if !ok {
			err = errors.New("a damaged record")
			break
		}
		rows, last = rest, key
		records++
		call := &message.Call{Completion: w}
		call.Request = message.Request{Kind: kind, Partition: p, Epoch: epoch, Hash: ring.Hash(key), Key: key, Record: enc}
		w.wait.Add(1)
		m.o.Local.Learn(call)
	}
	w.wait.Wait()
	if w.status != message.OK && err == nil {
		err = fmt.Errorf("not stored: %s", w.status)
	}
	return last, records, err
}

// learning waits for the records of a page.
type learning struct {
	wait   sync.WaitGroup
	mu     sync.Mutex
	status message.Status // the worst
}

// Done implements message.Completion.
func (l *learning) Done(call *message.Call) {
	if s := call.Reply.Status; s != message.OK {
		l.mu.Lock()
		l.status = s
		l.mu.Unlock()
	}
	l.wait.Done()
}
