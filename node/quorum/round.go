package quorum

import (
	"sync"
	"time"

	"kai/node/clock"
	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// round is one message to every member of a group and what came back of it. One goroutine runs it
// and waits; replies arrive on any. It goes back to the pool when the last reply is in.
type round struct {
	c     *Coordinator
	wake  chan struct{} // capacity 1
	timer *time.Timer
	guard *time.Timer // calls expired; for express rounds

	mu      sync.Mutex
	p       ring.Partition
	g       *Group
	enough  func(*Group, mask) bool
	waiting bool // run has not returned; later replies only count towards refs
	refs    int

	ok, refused, nacked, failed, corrupt, behind mask
	max                                          record.Ballot // highest accepted ballot reported
	atMax                                        mask          // who reported it
	state                                        []byte        // encoded record at max; empty if never written
	clockRejected                                mask

	answers answers
	context flight.Context // zero unless a request of it is sampled, or known to need a hint
	kind    message.Kind
	began   time.Duration // by clock.Now
	heard   time.Duration // when the last reply came that was waited for

	express express // l is nil unless the round is one

	// key is that of an Accept, if there is a Hinter: see missed. acked is who accepted it, those included
	// whose answer came when nobody waited any more.
	key   []byte
	acked mask
}

func newRound(c *Coordinator) *round {
	r := &round{c: c, wake: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	r.timer.Stop()
	r.guard = time.AfterFunc(time.Hour, r.expired)
	r.guard.Stop()
	return r
}

func readQuorum(g *Group, m mask) bool  { return g.reads(m) }
func writeQuorum(g *Group, m mask) bool { return g.writes(m) }

// round sends req to all members of g and returns when the positive answers are enough, when they
// cannot become enough, or at the timeout. The caller calls release when it has read the results.
func (c *Coordinator) round(p ring.Partition, g *Group, req *message.Request, enough func(*Group, mask) bool, timeout time.Duration, context flight.Context) *round {
	r := c.rounds.Get().(*round)
	r.reset(p, g, enough, req.Kind, clock.Now())
	r.context = context
	if req.Kind == message.Accept {
		r.keep(req.Key)
	}
	req.Partition, req.Epoch, req.Timeout, req.Came = p, g.conf.Epoch, timeout, r.began
	c.counters.Rounds.Add(1)
	call := c.call()
	call.Request = *req
	// The network first, so that the peers work while this node does.
	for i := range g.members {
		if i != g.self {
			r.ask(call, i)
		}
	}
	for i, m := range g.members {
		if i != g.self {
			m.replica.Flush()
		}
	}
	if g.self >= 0 {
		r.ask(call, g.self)
	}
	c.recycle(call)
	// The fraction keeps rounds that began together from ending at one instant: a simulation could not
	// repeat whose turn is first.
	r.wait(timeout + time.Duration(req.Hash%1000))
	return r
}

// ask sends member i the request of call.
func (r *round) ask(call *message.Call, i int) {
	call.Trace = r.answers.tell(i, &r.context)
	call.Completion, call.Index = r, i
	r.g.members[i].replica.Send(call)
}

func (r *round) reset(p ring.Partition, g *Group, enough func(*Group, mask) bool, kind message.Kind, now time.Duration) {
	n := len(g.members)
	r.kind = kind
	r.answers.reset(r.c.opts.Flights, n)
	r.began, r.heard = now, 0
	select {
	case <-r.wake:
	default:
	}
	r.p, r.g, r.enough = p, g, enough
	r.waiting, r.refs = true, n+1
	r.express = express{}
	r.context = flight.Context{}
	r.ok, r.refused, r.nacked, r.failed, r.corrupt, r.behind, r.clockRejected = 0, 0, 0, 0, 0, 0, 0
	r.max, r.atMax = record.Ballot{}, 0
	r.key, r.acked = r.key[:0], 0
	if cap(r.state) > keepBuffer {
		r.state = nil
	}
	r.state = r.state[:0]
}

// keepBuffer is the largest buffer worth keeping in a pool.
const keepBuffer = 64 << 10

func (r *round) wait(timeout time.Duration) {
	r.mu.Lock()
	decided := r.decided()
	r.mu.Unlock()
	if !decided {
		r.timer.Reset(timeout)
		select {
		case <-r.wake:
		case <-r.timer.C:
		}
		r.timer.Stop()
	}
	r.mu.Lock()
	r.waiting = false
	r.mu.Unlock()
}

// decided reports that waiting longer cannot change the outcome. r.mu is held.
func (r *round) decided() bool {
	if r.enough(r.g, r.ok) {
		return true
	}
	bad := r.refused | r.nacked | r.failed | r.corrupt
	return !r.enough(r.g, r.g.all()&^bad)
}

// Done takes one reply.
func (r *round) Done(call *message.Call) {
	r.mu.Lock()
	var learn, configure, finish bool
	var conf ring.Configuration
	if r.waiting {
		r.take(call)
		if call.Reply.Status == message.WrongEpoch {
			conf = call.Reply.Configuration
			learn, configure = conf.Epoch > r.g.conf.Epoch, conf.Epoch < r.g.conf.Epoch
		}
		switch {
		case !r.decided():
		case r.express.l == nil:
			select {
			case r.wake <- struct{}{}:
			default:
			}
		case !r.express.sending:
			r.waiting, finish = false, true
		}
	}
	p, g, i := r.p, r.g, call.Index
	if call.Reply.Status == message.OK {
		r.acked |= 1 << i
	}
	if finish {
		r.mu.Unlock()
		r.arrive()
		r.mu.Lock()
	}
	r.drop()
	if learn {
		r.c.learn(p, g, conf)
	}
	if configure {
		r.c.configure(p, g, i)
	}
}

func (r *round) take(call *message.Call) {
	bit := mask(1) << call.Index
	rep := &call.Reply
	if len(r.answers) > 0 {
		r.heard = came(rep.Came)
	}
	r.answers.say(call.Index, r.heard, false, rep.Status, rep.Ballot, rep.Timing)
	switch rep.Status {
	case message.OK:
		r.ok |= bit
		r.c.opts.Stamps.Observe(r.p, rep.Ballot.Stamp)
		switch c := rep.Ballot.Compare(r.max); {
		case c > 0:
			r.max, r.atMax = rep.Ballot, bit
			r.state = append(r.state[:0], rep.Record...)
		case c == 0:
			r.atMax |= bit
			if rep.Ballot.IsZero() && len(rep.Record) > 0 {
				r.state = append(r.state[:0], rep.Record...) // nothing, but of an age: see replica's unborn
			}
		}
	case message.Nack:
		r.nacked |= bit
		r.c.opts.Stamps.Observe(r.p, rep.Ballot.Stamp)
	case message.Corrupt:
		r.corrupt |= bit
	case message.TimedOut:
		r.failed |= bit
	default:
		r.refused |= bit
		if rep.Status == message.ClockReject {
			r.clockRejected |= bit
		}
	}
}

// won reports that enough positive answers came.
func (r *round) won() bool { return r.enough(r.g, r.ok) }

// harmless reports that certainly no member took the request, so that it cannot surface later.
func (r *round) harmless() bool { return r.refused|r.nacked == r.g.all() }

// release gives the round back; its results must not be used any more.
func (r *round) release() {
	r.mu.Lock()
	r.drop()
}

// drop lets go of one reference. r.mu is held, and let go of.
func (r *round) drop() {
	r.refs--
	last := r.refs == 0
	r.mu.Unlock()
	if last {
		if len(r.key) > 0 && r.acked != r.g.all() {
			r.missed()
		}
		r.c.rounds.Put(r)
	}
}
