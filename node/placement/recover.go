package placement

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"kai/node/message"
	"kai/node/ring"
)

// A recovered partition goes on at an epoch of a new generation: 8 bits generation, 16 bits slot of the node that
// recovered it, 8 bits for what is decided then. So generations order epochs first, two nodes that recover the same
// partition at once never make the same epoch, and the later epochs of one do not meet the other's before 256 of them.
const (
	generationShift = ring.GenerationShift
	slotShift       = 8
)

// Generation is how often a partition at that epoch was recovered.
func Generation(epoch uint32) uint32 { return ring.Generation(epoch) }

// RecoveredEpoch is the first epoch of the next generation, as the node with that slot makes it; false: there is none.
func RecoveredEpoch(epoch uint32, slot uint16) (next uint32, ok bool) {
	generation := Generation(epoch) + 1
	return generation<<generationShift | uint32(slot)<<slotShift, generation < 1<<(32-generationShift)
}

// Loss is a partition that cannot make a quorum any more, whoever comes back of those that may.
type Loss struct {
	// Survivors hold it and are alive, those that were members before a move first. Gone will not come back; Awaited are
	// neither: not alive, and not away for long enough.
	Survivors, Gone, Awaited []ring.NodeID
	// Acknowledged says that writes that were acknowledged may be at nobody but those that are gone.
	Acknowledged bool
}

// Lost looks whether a partition has lost its quorum for good. gone tells who will never come back, alive who is there.
func Lost(c ring.Configuration, q ring.Quorum, gone, alive func(ring.NodeID) bool) (l Loss, lost bool) {
	for _, ids := range [][]ring.NodeID{c.Members, c.Next} {
		if len(ids) == 0 {
			continue
		}
		left, quorum := 0, q.For(len(ids))
		for _, id := range ids {
			if alive(id) || !gone(id) {
				left++
			}
		}
		lost = lost || left < max(quorum.R, quorum.W)
	}
	if !lost {
		return Loss{}, false
	}
	for _, id := range holders(c) {
		switch {
		case alive(id):
			l.Survivors = append(l.Survivors, id)
		case gone(id):
			l.Gone = append(l.Gone, id)
		default:
			l.Awaited = append(l.Awaited, id)
		}
	}
	// All that counted is at a write quorum of the old members, unless the move has ended unheard.
	dead := 0
	for _, id := range c.Members {
		if !alive(id) {
			dead++
		}
	}
	l.Acknowledged = dead >= q.For(len(c.Members)).W || len(c.Next) > 0
	return l, true
}

// holders are those that hold a partition, in whatever part.
func holders(c ring.Configuration) []ring.NodeID {
	ids := slices.Clone(c.Members)
	for _, id := range c.Next {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// ErrNotRecovered says that a partition is as it was.
var ErrNotRecovered = errors.New("placement: not recovered")

// Recover gives p, which is lost at configuration c, a configuration of a new generation, without being asked by anybody's
// quorum: its members are next, and what any of survivors holds is at each of them that is one of them. The caller
// answers for it that nobody of the others comes back meanwhile (DESIGN.md, "Recovery"). It returns the configuration once this
// node has adopted it, durably, and has told everybody; errors wrap ErrNotRecovered, but those of ctx, after which nobody knows.
func (m *Mover) Recover(ctx context.Context, p ring.Partition, c ring.Configuration, slot uint16, survivors, next []ring.NodeID) (ring.Configuration, error) {
	epoch, ok := RecoveredEpoch(c.Epoch, slot)
	if !ok || len(next) == 0 {
		return c, fmt.Errorf("%w: partition %d has no next generation, or nobody to hold it", ErrNotRecovered, p)
	}
	if mustGather(m.o.Quorum, survivors, next) {
		for _, id := range next {
			if err := m.haveGathered(ctx, p, c, id, survivors); err != nil {
				return c, fmt.Errorf("%w: partition %d: %w", ErrNotRecovered, p, err)
			}
		}
	}
	if now := m.o.Configuration(p); !now.Equal(c) {
		return now, fmt.Errorf("%w: partition %d has moved on to epoch %d meanwhile", ErrNotRecovered, p, now.Epoch)
	}
	recovered := ring.Configuration{Epoch: epoch, Members: next}
	m.o.Adopt(p, recovered)
	for m.o.Configuration(p).Epoch < epoch {
		select {
		case <-ctx.Done():
			return c, ctx.Err()
		case <-time.After(askPause):
			m.o.Adopt(p, recovered) // another one may have been on its way to the disk
		}
	}
	m.tellAll(p, recovered, survivors)
	return recovered, nil
}

// mustGather reports whether some read quorum of next may miss what a survivor holds.
func mustGather(q ring.Quorum, survivors, next []ring.NodeID) bool {
	for _, id := range survivors {
		if !slices.Contains(next, id) {
			return true
		}
	}
	return len(survivors) > 0 && q.For(len(next)).R < len(next)
}

// haveGathered has a node take over what the survivors hold, and waits for it.
func (m *Mover) haveGathered(ctx context.Context, p ring.Partition, c ring.Configuration, id ring.NodeID, survivors []ring.NodeID) error {
	for _, other := range survivors {
		m.tell(p, c, other) // one epoch, or they do not talk
	}
	for pause := askPause; ; pause = min(2*pause, m.o.Tick) {
		switch status := m.askToGather(p, c, id, survivors); status {
		case message.OK:
			return nil
		case message.Busy:
		default:
			return fmt.Errorf("node %s does not gather what the others hold: %s", id, status)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (m *Mover) askToGather(p ring.Partition, c ring.Configuration, id ring.NodeID, survivors []ring.NodeID) message.Status {
	q := message.Request{Kind: message.Gather, Partition: p, Epoch: c.Epoch, Configuration: ring.Configuration{Epoch: c.Epoch, Members: survivors}}
	if id != m.o.Self {
		return m.send(id, q).Status
	}
	w := &answer{done: make(chan message.Reply, 1)}
	m.AnswerGather(&message.Call{Request: q, Completion: w})
	return (<-w.done).Status
}

// gathering is a gathering of a partition, under way or done.
type gathering struct {
	from ring.Configuration
	done bool
}

// AnswerGather answers a Gather: Busy until all is here. It does not block.
func (m *Mover) AnswerGather(call *message.Call) {
	p, from := call.Partition, call.Request.Configuration
	from.Members = slices.Clone(from.Members)
	m.mu.Lock()
	call.Reply = message.Reply{Status: message.Busy}
	g := m.gathers[p]
	switch {
	case int64(p) >= int64(m.o.Partitions) || from.Epoch == 0 || from.Epoch != call.Epoch:
		call.Reply.Status = message.Invalid
	case g != nil && g.from.Equal(from) && g.done:
		call.Reply.Status = message.OK
	case g != nil && !g.done, len(m.gathers) >= 2*m.o.Moves, m.life == nil:
	default:
		g, ctx := &gathering{from: from}, m.life
		m.gathers[p] = g
		m.tasks.Go(func() { m.gather(ctx, p, g) })
	}
	m.mu.Unlock()
	call.Completion.Done(call)
}

// keepGathered is how long a node remembers that it has gathered: the node that recovers asks every moment.
const keepGathered = 10 * time.Second

func (m *Mover) gather(ctx context.Context, p ring.Partition, g *gathering) {
	var err error
	for _, id := range g.from.Members {
		if id != m.o.Self && err == nil {
			err = m.gatherFrom(ctx, p, g.from.Epoch, id)
		}
	}
	m.mu.Lock()
	g.done = err == nil
	if err != nil {
		delete(m.gathers, p)
	}
	m.mu.Unlock()
	if err != nil {
		m.o.Logger.Debug("gathering interrupted", "partition", p, "error", err)
		return
	}
	time.AfterFunc(keepGathered, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.gathers[p] == g {
			delete(m.gathers, p)
		}
	})
}

// gatherFrom takes all records of p that another member holds.
func (m *Mover) gatherFrom(ctx context.Context, p ring.Partition, epoch uint32, id ring.NodeID) error {
	var leaves message.LeafSet
	for leaf := range message.Leaves {
		leaves.Add(leaf)
	}
	for after := []byte(nil); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		reply := m.send(id, message.Request{Kind: message.Transfer, Partition: p, Epoch: epoch, Key: after, Items: leaves[:]})
		if reply.Status != message.OK {
			return fmt.Errorf("records of partition %d from %s: %s", p, id, reply.Status)
		}
		rows, more, ok := message.OpenPage(reply.Items)
		if !ok {
			return fmt.Errorf("records of partition %d from %s: bad page", p, id)
		}
		last, records, err := m.store(message.Gather, p, epoch, rows)
		if err != nil {
			return fmt.Errorf("records of partition %d from %s: %w", p, id, err)
		}
		m.counters.Records.Add(uint64(records))
		m.counters.Bytes.Add(uint64(len(rows)))
		switch {
		case !more:
			return nil
		case len(last) == 0:
			return fmt.Errorf("records of partition %d from %s: empty page", p, id)
		}
		after = last
	}
}

// tellAll tells c to its members, to others, and to everybody who is to be told.
func (m *Mover) tellAll(p ring.Partition, c ring.Configuration, others ...[]ring.NodeID) {
	told := slices.Concat(c.Members, c.Next, slices.Concat(others...))
	if m.o.Everybody != nil {
		told = append(told, m.o.Everybody()...)
	}
	slices.Sort(told)
	for _, id := range slices.Compact(told) {
		if id != m.o.Self {
			m.tell(p, c, id)
		}
	}
}

// Informed reports that every live node has told this one, since its start, which configurations it knew.
func (m *Mover) Informed() bool { return m.informed() }
