package quorum

import (
	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
)

// manyRead is one message that asks one node for what the reads of a segment want of it.
type manyRead struct {
	c       *Coordinator
	replica Replica
	items   []byte
	asks    []ask
	context flight.Context
}

// ask is one read's part of it.
type ask struct {
	o      *readOp
	member int // whose answer it is, in o's group
	digest bool
}

// ask has member i of o's group asked, together with what else the segment wants of that node.
func (s *Session) ask(o *readOp, i int, digest bool) {
	r := o.g.members[i].replica
	var m *manyRead
	for _, have := range s.many {
		if have.replica == r && len(have.asks) < message.MaxItems {
			m = have
		}
	}
	if m == nil {
		m = s.c.manies.Get().(*manyRead)
		m.replica = r
		s.many = append(s.many, m)
	}
	if o.context.Sampled() && !m.context.Sampled() { // the first one that is
		m.context = o.answers.tell(i, &o.context)
	}
	m.items = message.AppendItem(m.items, message.Item{Epoch: o.g.conf.Epoch, Digest: digest, Key: o.key})
	m.asks = append(m.asks, ask{o, i, digest})
}

// near is the members of g that the reads of this segment ask already, or else those that its mutations
// have something for: asking the same ones makes fewer messages, and fewer nodes are woken for it.
func (s *Session) near(g *Group) (m mask) {
	for _, have := range s.many {
		m |= g.with(have.replica)
	}
	if m != 0 {
		return m
	}
	for _, r := range s.touched {
		m |= g.with(r)
	}
	return m
}

// askAll sends what ask gathered.
func (s *Session) askAll() {
	for i, m := range s.many {
		s.many[i] = nil
		r := m.replica
		m.send() // m is not ours any more
		r.Flush()
	}
	s.many = s.many[:0]
}

func (m *manyRead) send() {
	c, call := m.c, m.c.call()
	call.Request = message.Request{Kind: message.ReadMany, Items: m.items, Timeout: m.asks[0].o.timeout}
	if m.context.Sampled() {
		call.Trace = m.context
	}
	call.Completion = m
	m.replica.Send(call)
	c.recycle(call)
}

// Done hands out the answers.
func (m *manyRead) Done(call *message.Call) {
	if call.Reply.Status == message.Unsupported { // an older build is asked key by key
		for _, x := range m.asks {
			x.o.send(x.member, x.digest)
		}
		m.replica.Flush()
		m.release()
		return
	}
	rest, s, now := call.Reply.Items, call.Reply.Status, m.c.heard(&call.Reply)
	for i := range m.asks {
		x := &m.asks[i]
		a, ok := message.Answer{Status: s}, true
		if s == message.OK {
			if a, rest, ok = message.NextAnswer(rest); !ok {
				s = message.TimedOut // not understood
				a = message.Answer{Status: s}
			}
		}
		if len(a.Record) > 0 && record.Check(x.o.key, a.Record) != nil {
			a = message.Answer{Status: message.Corrupt}
		}
		x.o.answered(x.member, x.digest, a.Status, a.Ballot, a.Record, call.Reply.Timing, now)
	}
	m.release()
}

func (m *manyRead) release() {
	clear(m.asks)
	m.asks, m.items, m.replica, m.context = m.asks[:0], m.items[:0], nil, flight.Context{}
	m.c.manies.Put(m)
}
