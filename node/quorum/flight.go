package quorum

import (
	"slices"
	"time"

	"kai/node/clock"
	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// maxSteps bounds what is remembered of one request: many tries look alike.
const maxSteps = 24

// answers is what the members of a group have said so far, by member; empty if no flights are kept. Times are those of clock.Now.
type answers []said

type said struct {
	flight.Answer
	sent time.Duration // 0: with the others
	span uint64        // what the replica was told; 0: nothing
}

// tell is the context of a message to member i, of a request with context c.
func (a answers) tell(i int, c *flight.Context) (of [message.TraceLen]byte) {
	if i < len(a) && c.Sampled() {
		a[i].span = flight.Span()
		of = c.From(a[i].span)
	}
	return of
}

// refused reports that a member has said for sure that it did not take what others may have.
func (a answers) refused() bool {
	for i := range a {
		if s := a[i].Status; s != 0 && s != message.OK {
			return true
		}
	}
	return false
}

// reset makes room for n members.
func (a *answers) reset(fl *flight.Recorder, n int) {
	switch {
	case fl == nil:
		*a = (*a)[:0]
	case cap(*a) < n:
		*a = make(answers, n)
	default:
		*a = (*a)[:n]
		clear(*a)
	}
}

// say notes what member i has answered at now.
func (a answers) say(i int, now time.Duration, digest bool, s message.Status, b record.Ballot, t message.Timing) {
	if i < len(a) {
		p := &a[i].Answer
		p.At, p.Ballot, p.Timing, p.Status, p.Digest = max(now, 1), b, t, s, digest // 0 is no answer
	}
}

// steps appends them to those of a request that began then; asked says whom, sent when, but for those asked later.
func (a answers) steps(to []flight.Step, g *Group, kind message.Kind, asked mask, sent, began time.Duration) []flight.Step {
	to = slices.Grow(to, min(len(a), maxSteps))
	for i := range a {
		if !asked.has(i) || len(to) >= maxSteps {
			continue
		}
		st := flight.Step{Node: g.members[i].id, Kind: kind, Sent: max(a[i].sent, sent) - began, Span: a[i].span, Answer: a[i].Answer}
		if st.At != 0 {
			st.At = max(st.At-began, 1) // this node's own replica answers by the look at the clock that the batch began with
		}
		to = append(to, st)
	}
	return to
}

// came is that time, if it is known, and else now.
func came(at time.Duration) time.Duration {
	if at != 0 {
		return at
	}
	return clock.Now()
}

// heard is when rep came, for flights; 0 if none are kept.
func (c *Coordinator) heard(rep *message.Reply) time.Duration {
	if c.opts.Flights == nil {
		return 0
	}
	return came(rep.Came)
}

// sample is the context of a request that began then, if it is to be kept by chance.
func sample(fl *flight.Recorder, began time.Duration) (c flight.Context) {
	if fl.Sample(began) {
		c = flight.NewContext()
		c.Sample()
	}
	return c
}

// sampled is the context of the first of batch that is sampled: what the round is part of, for other nodes.
func sampled(batch []*mutation) (c flight.Context) {
	for _, m := range batch {
		if m.context.Sampled() {
			return m.context
		}
	}
	return c
}

// note adds what a round was told to the flight of m. It is called when nothing is added any more.
func (r *round) note(m *mutation) {
	if len(r.answers) > 0 {
		if r.kind == message.Accept && r.won() && r.answers.refused() {
			m.hinted = true
			if m.context == (flight.Context{}) {
				m.context = flight.NewContext()
			}
			r.context = m.context // for the hint, which may come of it
		}
		if m.heard = 0; r.kind == message.Accept && r.won() { // which decides it
			m.heard = r.heard
		}
		m.steps = r.answers.steps(m.steps, r.g, r.kind, r.g.all(), r.began, m.began)
	}
}

// keepRead ends the flight of a get that took so long; diverged: it took a closer look, whose steps are s.closer.
func (s *Session) keepRead(o *readOp, op *record.Op, res *record.Result, diverged bool, took time.Duration) {
	fl := s.c.opts.Flights
	var besides flight.Class
	if diverged {
		besides = flight.Diverged
	}
	if o.context.Sampled() {
		besides |= flight.Sampled
	}
	class := fl.Classify(took, res.Status, besides)
	if class == 0 {
		return
	}
	context := o.context // a late retry may still read that one
	if context == (flight.Context{}) {
		context = flight.NewContext()
	}
	f := &flight.Flight{Context: context, Took: took, Op: op.Kind, Partition: o.p, Status: res.Status, Detail: res.Detail, Class: class, Batch: len(s.slots)}
	o.mu.Lock()
	f.Steps = o.answers.steps(nil, o.g, message.Read, o.asked, s.began, s.began)
	o.mu.Unlock()
	f.Steps = append(f.Steps, s.closer...)
	fl.Add(f, s.began, o.hash)
}

// keep ends the flight of a mutation that took so long; batch 0: another node asked for it.
func (m *mutation) keep(fl *flight.Recorder, p ring.Partition, res *record.Result, batch int, took time.Duration) {
	var besides flight.Class
	if m.context.Sampled() {
		besides = flight.Sampled
	}
	if m.hinted {
		besides |= flight.Hinted
	}
	class := fl.Classify(took, res.Status, besides)
	if class == 0 {
		return
	}
	f := &flight.Flight{Context: m.context, Took: took, Op: m.op.Kind, Partition: p, Status: res.Status, Detail: res.Detail, Class: class, Batch: batch, Forwarded: batch == 0}
	if f.Context == (flight.Context{}) {
		f.Context = flight.NewContext()
	}
	f.Steps = slices.Clone(m.steps)
	fl.Add(f, m.began, m.hash)
}
