package quorum

import (
	"slices"
	"time"

	"kai/node/clock"
	"kai/node/message"
	"kai/node/record"
)

// express is the state of a mutation that needs one round trip and no goroutine of its own: the
// sticky state is here, so it is applied and proposed at once, on the goroutine that brought it, and
// the reply that decides the round answers it. What is not decided so goes on in the lane.
type express struct {
	l       *lane
	m       *mutation
	b, next record.Ballot
	id      record.Version
	res     record.Result
	sending bool // not all members have been asked yet: too early to finish
	overdue bool
}

// tryExpress proposes m, which alone is in l, without waiting. False: it did not, and m is the
// caller's. s flushes the links it used; without s, who called does, when its batch ends.
func (c *Coordinator) tryExpress(l *lane, m *mutation, s *Session) bool {
	_, g := c.group(l.hash)
	if g == nil || g.self < 0 {
		return false
	}
	b, ok := c.fromSticky(l, g, false)
	if !ok {
		return false
	}
	id, ok := c.opts.Stamps.TryNext(l.p, c.ownSlot())
	if !ok {
		return false
	}
	stamp, ok := c.opts.Stamps.TryNext(l.p, c.ownSlot())
	if !ok {
		return false
	}
	l.batch = append(l.batch[:0], m)
	f := c.apply(l, l.batch, id)
	if !f.wrote {
		if c.has(RuleStickyNegative) {
			return false // a negative answer needs a quorum
		}
		m.decide(f.res[0])
		c.goOn(l)
		return true
	}
	c.counters.StickyRounds.Add(1)
	c.counters.Rounds.Add(1)
	l.next.Ballot = b
	l.enc = record.Append(l.enc[:0], l.key, &l.next)
	timeout := max(min(m.deadline.Sub(clock.Time(m.began)), c.opts.Timeout/4), time.Millisecond) // it began just now
	r := c.rounds.Get().(*round)
	r.reset(l.p, g, writeQuorum, message.Accept, m.began)
	r.keep(l.key)
	if m.context.Sampled() {
		r.context = m.context
	}
	r.express = express{l: l, m: m, b: b, next: record.Ballot{Epoch: g.conf.Epoch, Stamp: stamp}, id: id, res: f.res[0], sending: true}
	r.refs++ // the guard's
	r.guard.Reset(timeout)
	r.proposeAll(timeout, s)
	return true
}

// proposeAll asks every member to accept, and finishes if all is decided by then.
func (r *round) proposeAll(timeout time.Duration, s *Session) {
	g, x := r.g, &r.express
	call := r.c.call()
	call.Request = message.Request{Kind: message.Accept, Partition: r.p, Epoch: g.conf.Epoch, Hash: x.l.hash,
		Key: x.l.key, Record: x.l.enc, Next: x.next, Timeout: timeout, Came: r.began}
	for i, m := range g.members {
		if i != g.self {
			r.ask(call, i)
			if s != nil {
				s.touch(m.replica, false)
			}
		}
	}
	r.ask(call, g.self)
	r.c.recycle(call)
	r.mu.Lock()
	x.sending = false
	finish := r.waiting && (r.decided() || x.overdue)
	r.waiting = r.waiting && !finish
	r.mu.Unlock()
	if finish {
		r.arrive()
	}
	r.release()
}

// expired is the guard: replies that never come must not keep a client waiting.
func (r *round) expired() {
	r.mu.Lock()
	r.express.overdue = true
	finish := r.waiting && !r.express.sending
	r.waiting = r.waiting && !finish
	r.mu.Unlock()
	if finish {
		r.arrive()
	}
	r.release()
}

// arrive ends an express round: whoever set waiting to false calls it, once, and holds a reference.
func (r *round) arrive() {
	c, x := r.c, &r.express
	l, m := x.l, x.m
	r.note(m)
	if r.guard.Stop() {
		r.release()
	}
	if r.won() {
		c.sticky.put(l.hash, x.b, x.next)
		m.decide(x.res)
		c.goOn(l)
		return
	}
	c.refusedWide(l.p, r.g, x.b)
	if !r.harmless() {
		x.res.Value = slices.Clone(x.res.Value)
		m.attempts = append(m.attempts, attempt{x.id, x.res})
	}
	c.counters.Retries.Add(1)
	c.requeue(l, m)
	c.work(l)
}

// requeue puts m before what waits in l.
func (c *Coordinator) requeue(l *lane, m *mutation) {
	s := c.lanes.shard(l.hash)
	s.mu.Lock()
	l.waiting = slices.Insert(l.waiting, 0, m)
	s.mu.Unlock()
}

// goOn closes l if nothing waits in it, or hands it to a worker.
func (c *Coordinator) goOn(l *lane) {
	s := c.lanes.shard(l.hash)
	s.mu.Lock()
	if len(l.waiting) > 0 {
		s.mu.Unlock()
		c.work(l)
		return
	}
	s.close(l)
	s.mu.Unlock()
	l.recycle()
	c.lanes.free.Put(l)
}
