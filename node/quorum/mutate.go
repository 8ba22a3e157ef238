package quorum

import (
	"slices"
	"time"

	"kai/node/message"
	"kai/node/record"
)

const (
	minBackoff = time.Millisecond
	maxBackoff = 32 * time.Millisecond
	// lineageAge is how many request timeouts a version stays in a record's lineage: no operation
	// looks for itself after its own deadline.
	lineageAge = 10
)

const (
	whyDeadline = "no quorum of replicas in time"
	whyGroup    = "this node is no replica of the partition"
	whyStamp    = "cannot reserve time on disk"
	whyLineage  = "too many later mutations to tell"
	whyClock    = "this node's clock is too far from the others'"
	whyCorrupt  = "the stored state failed its checksum on too many replicas"
)

// decide runs CASPaxos rounds until every mutation of the batch is decided.
func (c *Coordinator) decide(l *lane, batch []*mutation) {
	why := whyDeadline
	useSticky := true
	for try := 0; ; try++ {
		if batch = c.undecided(batch, why); len(batch) == 0 {
			return
		}
		if try > 0 {
			c.counters.Retries.Add(1)
			c.backoff(l, try)
		}
		_, g := c.group(l.hash) // one group a round: prepare and accept must not straddle epochs
		if g == nil || g.self < 0 {
			for _, m := range batch {
				c.give(m, whyGroup)
			}
			return
		}
		t := c.try(l, g, batch, useSticky)
		if t.why != "" {
			why = t.why
		}
		useSticky = false
		if t.again {
			try = -1 // the sticky state could not answer; ask the quorum, without waiting
		}
	}
}

// undecided drops what is decided or past its deadline.
func (c *Coordinator) undecided(batch []*mutation, why string) []*mutation {
	now := time.Now()
	keep := batch[:0]
	for _, m := range batch {
		switch {
		case m == nil:
		case now.Before(m.deadline):
			keep = append(keep, m)
		case why == whyCorrupt && len(m.attempts) == 0:
			m.decide(record.Result{Status: record.Corrupt, Detail: why})
		default:
			c.give(m, why)
		}
	}
	return keep
}

func (c *Coordinator) backoff(l *lane, try int) {
	top := min(minBackoff<<min(try, 5), maxBackoff)
	l.seed = l.seed*6364136223846793005 + 1442695040888963407
	time.Sleep(minBackoff/2 + time.Duration((l.seed>>33)%uint64(top)))
}

// roundTimeout leaves time for other rounds, should a replica hang.
func (c *Coordinator) roundTimeout(batch []*mutation) time.Duration {
	latest := batch[0].deadline
	for _, m := range batch {
		if m.deadline.After(latest) {
			latest = m.deadline
		}
	}
	return max(min(time.Until(latest), c.opts.Timeout/4), time.Millisecond)
}

type tried struct {
	again bool   // ask again at once, without the sticky state
	why   string // what stood in the way
}

// try is one CASPaxos round for the batch: learn the state, apply, propose.
func (c *Coordinator) try(l *lane, g *Group, batch []*mutation, useSticky bool) tried {
	b, agreed, isSticky := record.Ballot{}, false, false
	if useSticky {
		b, isSticky = c.fromSticky(l, g, true)
	}
	if isSticky {
		c.counters.StickyRounds.Add(1)
		agreed = !c.has(RuleStickyNegative)
	} else {
		c.missedWide(l.p, g)
		var why string
		if b, agreed, why = c.prepare(l, g, batch); why != "" {
			return tried{why: why}
		}
	}
	id, err := c.opts.Stamps.Next(l.p, c.ownSlot())
	if err != nil {
		return tried{why: whyStamp}
	}
	f := c.apply(l, batch, id)
	if !f.wrote && !f.seal && agreed {
		if !isSticky {
			// The promise was given and not used: it serves the key's next mutation.
			if !l.state.Ballot.IsZero() {
				c.sticky.put(l.hash, l.state.Ballot, b)
			}
		}
		f.answer(batch)
		return tried{}
	}
	if isSticky && !f.wrote {
		return tried{again: true}
	}
	if f.seal {
		c.counters.Seals.Add(1)
	}
	return c.propose(l, g, batch, f, b, id)
}

// prepare asks for promises and fills l.state with the newest accepted state of a read quorum.
// agreed: a write quorum reported it.
func (c *Coordinator) prepare(l *lane, g *Group, batch []*mutation) (b record.Ballot, agreed bool, why string) {
	stamp, err := c.opts.Stamps.Next(l.p, c.ownSlot())
	if err != nil {
		return b, false, whyStamp
	}
	b = record.Ballot{Epoch: g.conf.Epoch, Stamp: stamp}
	req := message.Request{Kind: message.Prepare, Hash: l.hash, Key: l.key, Ballot: b}
	if !c.has(RulePrepare) {
		req.Kind = message.Read
	}
	r := c.round(l.p, g, &req, readQuorum, c.roundTimeout(batch), sampled(batch))
	defer r.release()
	for _, m := range batch {
		r.note(m)
	}
	if !r.won() {
		switch {
		case r.clockRejected != 0:
			return b, false, whyClock
		case r.corrupt != 0:
			return b, false, whyCorrupt
		}
		return b, false, whyDeadline
	}
	l.state = record.Record{Recent: l.state.Recent[:0]}
	if len(r.state) > 0 {
		l.enc = append(l.enc[:0], r.state...)
		if record.Decode(l.key, l.enc, &l.state) != nil {
			return b, false, whyCorrupt
		}
		// What l.state aliases must outlive the encoding of the next state.
		l.state.Value = append([]byte(nil), l.state.Value...)
	}
	return b, g.writes(r.atMax), ""
}

// fold is what a batch makes of a state.
type fold struct {
	wrote bool // the state changed
	seal  bool // it must be written even if unchanged
	res   []record.Result
	did   []bool // by mutation: it changed the state in this fold
}

// apply runs the batch on l.state in order; the outcome is l.next. Mutations found in the state's
// lineage are answered as their earlier proposal would have been.
func (c *Coordinator) apply(l *lane, batch []*mutation, id record.Version) fold {
	l.res = slices.Grow(l.res[:0], len(batch))[:len(batch)]
	l.did = slices.Grow(l.did[:0], len(batch))[:len(batch)]
	clear(l.res)
	clear(l.did)
	f := fold{res: l.res, did: l.did}
	wall := c.opts.Wall()
	now := uint32(wall.Unix())
	l.next = l.state
	for i, m := range batch {
		if len(m.attempts) > 0 && c.has(RuleDedupe) {
			res, folded := m.lookup(&l.state)
			if folded == record.IsFolded {
				f.res[i] = res
				continue
			}
			if folded == record.MaybeFolded {
				f.res[i] = record.Result{Status: record.Unknown, Detail: whyLineage}
				continue
			}
			// An own proposal lies on a minority, perhaps. Whatever is answered now must be written
			// at this higher ballot first, or that proposal could be adopted later.
			f.seal = f.seal || c.has(RuleSeal)
		}
		var wrote bool
		f.seal = f.seal || m.rewrite
		f.res[i], wrote = m.op.Apply(&l.next, id, now, c.opts.MaxValue)
		f.did[i] = wrote
		f.wrote = f.wrote || wrote
	}
	if f.wrote {
		age := lineageAge * c.opts.Timeout
		l.next.Succeed(id, record.NewStamp(record.Ticks(wall.Add(-age)), 0))
	}
	return f
}

// lookup tells whether one of m's proposals is part of the state, and what it answers then.
func (m *mutation) lookup(s *record.Record) (record.Result, record.Folded) {
	maybe := record.NotFolded
	for _, a := range m.attempts {
		switch s.Lineage(a.id) {
		case record.IsFolded:
			return a.res, record.IsFolded
		case record.MaybeFolded:
			maybe = record.MaybeFolded
		}
	}
	return record.Result{}, maybe
}

// answer decides the whole batch. A decided mutation belongs to who waited for it, who may use it
// anew at once, and what it brought: the batch lets go of it first, and values that another one's result shares with it are copied before.
func (f *fold) answer(batch []*mutation) {
	for i, m := range batch {
		m.value = append(m.value[:0], f.res[i].Value...)
		f.res[i].Value = m.value
	}
	for i, m := range batch {
		batch[i] = nil
		m.decide(f.res[i])
	}
}

// propose asks the group to accept l.next at b, with a promise of the next ballot.
func (c *Coordinator) propose(l *lane, g *Group, batch []*mutation, f fold, b record.Ballot, id record.Version) tried {
	stamp, err := c.opts.Stamps.Next(l.p, c.ownSlot())
	if err != nil {
		return tried{why: whyStamp}
	}
	next := record.Ballot{Epoch: g.conf.Epoch, Stamp: stamp}
	l.next.Ballot = b
	l.enc = record.Append(l.enc[:0], l.key, &l.next)
	req := message.Request{Kind: message.Accept, Hash: l.hash, Key: l.key, Record: l.enc, Next: next}
	r := c.round(l.p, g, &req, writeQuorum, c.roundTimeout(batch), sampled(batch))
	defer r.release()
	for _, m := range batch {
		r.note(m)
	}
	if r.won() {
		c.sticky.put(l.hash, b, next)
		f.answer(batch)
		return tried{}
	}
	c.refusedWide(l.p, g, b)
	if r.harmless() {
		if r.clockRejected != 0 {
			return tried{why: whyClock}
		}
		return tried{}
	}
	for i, m := range batch {
		if f.did[i] {
			m.attempts = append(m.attempts, attempt{id, f.res[i]})
			m.attempts[len(m.attempts)-1].res.Value = append([]byte(nil), f.res[i].Value...)
		}
	}
	return tried{}
}
