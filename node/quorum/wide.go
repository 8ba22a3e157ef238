package quorum

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// A wide promise is one that a read quorum gave for all keys of a partition at once (PrepareAll), along with
// the sums of what each of them holds. In leaves whose sums are equal at a read quorum, this node's replica
// among it, the local state of a key is what a Prepare at that ballot would have found. So the first
// mutation of a key that nobody wrote lately takes one round trip, too. Why it is safe: DESIGN.md.
type wide struct {
	ballot record.Ballot
	clean  message.LeafSet
	// used has a bit for each key that was proposed at ballot, by hash: two proposals of one key at
	// one ballot would be two values with one name. Keys that share a bit lose the shortcut; they share
	// a slot of the replicas' promises, too, so the second one would be refused.
	used  [wideBits / 64]atomic.Uint64
	nacks atomic.Uint32
}

const (
	// wideBits is the size of a replica's table of promises; a smaller one would do, and be refused more often.
	wideBits = 1024
	// wideAfter is how many prepares of single keys of a partition make a wide promise worth its price.
	wideAfter = 32
	// widePause is the least time between two attempts for one partition: each ends the shortcuts of
	// all other coordinators of the partition.
	widePause = time.Second
	// maxWidening bounds the attempts under way.
	maxWidening = 2
	// maxWideNacks is how many refusals tell that somebody else promised more.
	maxWideNacks = 4
)

// wides has what this coordinator was promised, by partition.
type wides struct {
	parts    atomic.Pointer[[]widePart]
	widening atomic.Int32
}

type widePart struct {
	now  atomic.Pointer[wide]
	cold atomic.Uint32 // prepares since the last attempt
	last atomic.Int64  // when that was
	busy atomic.Bool
}

// grow makes room when the number of partitions is known; it never changes afterwards.
func (w *wides) grow(partitions int) {
	if partitions > 0 && w.parts.Load() == nil {
		parts := make([]widePart, partitions)
		w.parts.CompareAndSwap(nil, &parts)
	}
}

// wideOf is the promise in force for p under g, or nil.
func (c *Coordinator) wideOf(p ring.Partition, g *Group) *wide {
	parts := c.wides.parts.Load()
	if parts == nil {
		return nil
	}
	if w := (*parts)[p].now.Load(); w != nil && w.ballot.Epoch == g.conf.Epoch {
		return w
	}
	return nil
}

// use claims the ballot for a key; once.
func (w *wide) use(hash uint64) bool {
	bit := hash % wideBits
	word, m := &w.used[bit/64], uint64(1)<<(bit%64)
	return word.Or(m)&m == 0
}

// fromWide fills l.state with the local replica's state if the wide promise says that a quorum would tell the same, and returns
// the ballot to propose with.
func (c *Coordinator) fromWide(l *lane, g *Group, w *wide, patient bool) (record.Ballot, bool) {
	if w == nil || !w.clean.Has(message.Leaf(l.hash)) && c.has(RuleWideSums) {
		return record.Ballot{}, false
	}
	if !c.readLocal(l, g, patient) || !l.local.ballot.Less(w.ballot) || !w.use(l.hash) && c.has(RuleWideOnce) {
		return record.Ballot{}, false
	}
	l.state = record.Record{Recent: l.state.Recent[:0]}
	if len(l.local.record) > 0 {
		record.View(l.local.record, &l.state)
	}
	c.counters.WideRounds.Add(1)
	return w.ballot, true
}

// refusedWide hears that a proposal at b was refused.
func (c *Coordinator) refusedWide(p ring.Partition, g *Group, b record.Ballot) {
	if w := c.wideOf(p, g); w != nil && w.ballot == b && w.nacks.Add(1) >= maxWideNacks {
		(*c.wides.parts.Load())[p].now.CompareAndSwap(w, nil)
	}
}

// missedWide hears that a key of p had to be prepared by itself; enough of that is a reason to ask for the partition.
func (c *Coordinator) missedWide(p ring.Partition, g *Group) {
	parts := c.wides.parts.Load()
	if parts == nil || g.self < 0 || c.opts.WideAfter < 0 {
		return
	}
	part, after := &(*parts)[p], uint32(c.opts.WideAfter)
	if after == 0 {
		after = wideAfter
	}
	if part.cold.Add(1) < after || time.Duration(time.Now().UnixNano()-part.last.Load()) < min(widePause, c.opts.Timeout/2) {
		return
	}
	if c.wides.widening.Add(1) > maxWidening || !part.busy.CompareAndSwap(false, true) {
		c.wides.widening.Add(-1)
		return
	}
	part.cold.Store(0)
	part.last.Store(time.Now().UnixNano())
	go func() {
		if w := c.widen(p, g); w != nil {
			part.now.Store(w)
		}
		part.busy.Store(false)
		c.wides.widening.Add(-1)
	}()
}

// widen asks all members of p for a promise.
func (c *Coordinator) widen(p ring.Partition, g *Group) *wide {
	stamp, err := c.opts.Stamps.Next(p, c.ownSlot())
	if err != nil {
		return nil
	}
	c.counters.Wides.Add(1)
	b := record.Ballot{Epoch: g.conf.Epoch, Stamp: stamp}
	timeout := c.opts.Timeout / 2
	a := &widening{c: c, p: p, tables: make([][]byte, len(g.members)), left: len(g.members), done: make(chan struct{})}
	call := &message.Call{Completion: a}
	call.Request = message.Request{Kind: message.PrepareAll, Partition: p, Epoch: g.conf.Epoch, Ballot: b, Timeout: timeout}
	for i, m := range g.members {
		call.Index = i
		m.replica.Send(call)
		m.replica.Flush()
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-a.done:
	case <-timer.C:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	w := &wide{ballot: b}
	for leaf := range message.Leaves {
		own, known := message.PromisedLeaf(a.tables[g.self], leaf)
		if !known {
			continue
		}
		var same mask
		for i, t := range a.tables {
			if sum, known := message.PromisedLeaf(t, leaf); known && sum == own {
				same |= 1 << i
			}
		}
		if g.reads(same) {
			w.clean.Add(leaf)
		}
	}
	return w
}

// widening gathers the answers to a PrepareAll.
type widening struct {
	c      *Coordinator
	p      ring.Partition
	mu     sync.Mutex
	tables [][]byte // by member
	left   int
	done   chan struct{}
}

// Done implements message.Completion.
func (a *widening) Done(call *message.Call) {
	rep := &call.Reply
	a.c.opts.Stamps.Observe(a.p, rep.Ballot.Stamp)
	a.mu.Lock()
	defer a.mu.Unlock()
	if rep.Status == message.OK {
		a.tables[call.Index] = slices.Clone(rep.Items)
	}
	if a.left--; a.left == 0 {
		close(a.done)
	}
}
