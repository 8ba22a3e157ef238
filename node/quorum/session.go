package quorum

import (
	"sync/atomic"
	"time"

	"kai/node/clock"
	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Session runs the operations of one client connection, one batch at a time. It belongs to one
// goroutine.
type Session struct {
	c        *Coordinator
	pending  atomic.Int32  // operations of the segment that are not decided
	wake     chan struct{} // capacity 1: pending reached 0
	timer    *time.Timer
	reads    []*readOp  // values of the last Execute, alive until the next
	muts     []*forward // of the last Execute, like reads
	slow     [][]byte   // values of slow reads, alive until the next Execute
	slots    []slot     // by operation of the segment
	touched  []Replica  // links to flush
	many     []*manyRead
	began    time.Duration // of the segment, by clock.Now, like the next two
	ended    time.Duration // of the segment before, when all of it was decided
	closer   []flight.Step // of the get that is looked at more closely
	observed time.Duration // when the gets began whose latency was observed last
	now      uint32        // when the segment's gets were answered, for expiry
}

// slot says what decides an operation of the segment: a read or a mutation.
type slot struct {
	hash uint64
	read *readOp
	mut  *forward
}

// Session opens a session.
func (c *Coordinator) Session() *Session {
	s := &Session{c: c, wake: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	s.timer.Stop()
	return s
}

// Close ends the session; values of the last Execute are not valid any more.
func (s *Session) Close() { s.recycle() }

func (s *Session) recycle() {
	for i, o := range s.reads {
		o.drop()
		s.reads[i] = nil
	}
	s.reads = s.reads[:0]
	for i, f := range s.muts {
		s.muts[i] = nil
		if cap(f.m.value) <= keepBuffer {
			// What the caller owned must not stay alive in the pool.
			f.s, f.m.op = nil, record.Op{}
			s.c.forwards.Put(f)
		}
	}
	s.muts, s.slow = s.muts[:0], nil
}

// Execute runs ops and fills results, of the same length. It blocks until all are decided, each at
// most the request timeout. Operations on different keys may take effect in any order, those on one
// key take effect in the order of ops. Result.Value stays valid until the next Execute; the ops'
// slices must stay valid until Execute returns. It returns how long it took.
func (s *Session) Execute(ops []record.Op, results []record.Result) time.Duration {
	s.recycle()
	began := clock.Now()
	s.ended = began
	if len(ops) == 0 { // the caller will rest: keep nothing alive meanwhile
		clear(s.slots[:cap(s.slots)])
	}
	for len(ops) > 0 {
		n := s.segment(ops)
		s.run(ops[:n], results[:n])
		ops, results = ops[n:], results[n:]
	}
	return s.ended - began
}

// segment is how many of ops can run side by side: up to the first that meets an earlier one on its
// key, where one of the two mutates. It fills the hashes of s.slots.
func (s *Session) segment(ops []record.Op) int {
	s.slots = s.slots[:0]
	var all, mutated uint64 // one bit for some hashes: sees quickly that there is no meeting
	for i := range ops {
		h := ring.Hash(ops[i].Key)
		bit, mut := uint64(1)<<(h&63), ops[i].Mutates()
		if mutated&bit != 0 || mut && all&bit != 0 {
			for j := range i {
				if s.slots[j].hash == h && (mut || ops[j].Mutates()) {
					return i
				}
			}
		}
		all |= bit
		if mut {
			mutated |= bit
		}
		s.slots = append(s.slots, slot{hash: h})
	}
	return len(ops)
}

func (s *Session) touch(r Replica, self bool) {
	if self {
		return
	}
	for _, t := range s.touched {
		if t == r {
			return
		}
	}
	s.touched = append(s.touched, r)
}

func (s *Session) flush() {
	for i, t := range s.touched {
		t.Flush()
		s.touched[i] = nil
	}
	s.touched = s.touched[:0]
}

// run decides a segment.
func (s *Session) run(ops []record.Op, results []record.Result) {
	c := s.c
	s.began = s.ended
	deadline := clock.Time(s.began + c.opts.Timeout)
	// One more than there are, so that it cannot reach 0 before all are on their way. Whoever brings
	// it to 0 wakes this goroutine, once; if that is this goroutine itself, nobody does.
	s.pending.Store(int32(len(ops)) + 1)
	// Mutations first: reads go along with them.
	for i := range ops {
		op, sl := &ops[i], &s.slots[i]
		if !op.Mutates() {
			continue
		}
		if p, g := c.group(sl.hash); g != nil {
			sl.mut = s.mutate(p, g, op, sl.hash, deadline, len(ops) == 1)
		} else {
			s.nobody(&results[i])
		}
	}
	firstRead, gets := len(s.reads), 0
	for i := range ops {
		op, sl := &ops[i], &s.slots[i]
		if op.Mutates() {
			continue
		}
		p, g := c.group(sl.hash)
		if g == nil {
			s.nobody(&results[i])
			continue
		}
		gets++
		sl.read = c.reads.Get().(*readOp)
		s.reads = append(s.reads, sl.read)
		sl.read.start(p, g, op.Key, sl.hash, c.opts.Timeout, s)
	}
	c.counters.Gets.Add(uint64(gets))
	// The network first, so that the peers work while this node does.
	s.askAll()
	s.flush()
	asked := s.began
	if gets < len(ops) { // starting mutations may have taken a while
		asked = clock.Now()
	}
	s.readHere(s.reads[firstRead:], asked)
	if s.pending.Add(-1) != 0 {
		s.wait(deadline, s.reads[firstRead:])
	}
	s.ended = clock.Now()
	took := s.ended - s.began
	if gets == len(ops) && s.began-s.observed >= observeEvery {
		s.observed = s.began
		c.observeLatency(took)
	}
	if gets > 0 {
		s.now = c.now()
	}
	for i := range ops {
		s.collect(&ops[i], &s.slots[i], &results[i], deadline, took)
	}
}

// nobody decides an operation whose partition has no replicas.
func (s *Session) nobody(res *record.Result) {
	*res = record.Result{Status: record.Unavailable, Detail: detailNF}
	s.pending.Add(-1)
}

// readHere asks this node's own replica for those of reads that want it, now.
func (s *Session) readHere(reads []*readOp, now time.Duration) {
	if len(reads) > 1 {
		for _, o := range reads {
			if o.here {
				o.g.members[o.g.self].reader.WarmIndex(o.hash)
			}
		}
		for _, o := range reads {
			if o.here {
				o.g.members[o.g.self].reader.WarmEntry(o.hash)
			}
		}
	}
	for _, o := range reads {
		o.readHere(now)
	}
}

// wait blocks until the segment is decided, asking more replicas when reads take long.
func (s *Session) wait(deadline time.Time, reads []*readOp) {
	hedge := s.c.hedgeAfter()
	s.timer.Reset(hedge)
	defer s.timer.Stop()
	for {
		select {
		case <-s.wake:
			return
		case <-s.timer.C:
		}
		if time.Now().Before(deadline) {
			for _, o := range reads {
				o.hedge()
			}
			hedge *= 2
			s.timer.Reset(min(hedge, max(time.Until(deadline), time.Millisecond)))
			continue
		}
		for _, o := range reads {
			o.expire()
		}
		// Mutations decide themselves at their deadline; only their answer is awaited.
		s.timer.Reset(s.c.opts.Timeout)
	}
}

// collect fills the result of one operation, and does what could not be done on the way; then its segment has not ended before.
// took is what the segment has taken without that.
func (s *Session) collect(op *record.Op, sl *slot, res *record.Result, deadline time.Time, took time.Duration) {
	switch {
	case sl.read != nil:
		o := sl.read // decided, so it needs no lock: see finish
		state, enc := o.state, o.value
		if o.ballot.IsZero() {
			enc = nil
		}
		switch state {
		case agreed:
			*res = s.c.result(op, enc, s.now)
		case differs:
			var buf []byte
			*res, buf = s.readSlow(op, sl.hash, deadline, nil, o.context)
			s.slow = append(s.slow, buf)
			s.ended = clock.Now()
			took = s.ended - s.began
		case failed:
			why := whyDeadline
			if o.corrupt {
				why = whyCorrupt
			}
			*res = s.c.undecidedRead(why)
		}
		s.keepRead(o, op, res, state == differs, took)
		s.closer = s.closer[:0]
	case sl.mut != nil:
		refused := sl.mut.m.res.Status == record.NoStatus
		*res = s.finish(sl.mut, deadline)
		if refused {
			s.ended = clock.Now()
			took = s.ended - s.began
		}
		sl.mut.m.keep(s.c.opts.Flights, sl.mut.p, res, len(s.slots), took)
	}
}

// forward is a mutation of this session: decided here, or by a coordinator that is a replica.
type forward struct {
	s     *Session
	m     mutation
	sent  time.Duration
	span  uint64
	p     ring.Partition
	g     *Group
	tried mask
}

// mutate starts a mutation at the favoured coordinator of its partition.
func (s *Session) mutate(p ring.Partition, g *Group, op *record.Op, hash uint64, deadline time.Time, alone bool) *forward {
	s.c.counters.Mutations.Add(1)
	f := s.c.forwards.Get().(*forward)
	s.muts = append(s.muts, f)
	f.m = mutation{op: *op, hash: hash, deadline: deadline, attempts: f.m.attempts[:0], value: f.m.value[:0], done: f,
		began: s.began, steps: f.m.steps[:0]}
	f.m.context = sample(s.c.opts.Flights, s.began)
	f.s, f.p, f.g, f.tried = s, p, g, 0
	f.dispatch(alone)
	return f
}

// dispatch sends the mutation to the next coordinator in line; false when none is left.
func (f *forward) dispatch(inline bool) bool {
	i := f.g.favoured(f.tried)
	if i < 0 {
		f.m.decide(record.Result{Status: record.Unavailable, Detail: "no replica of the partition can be reached"})
		return false
	}
	f.tried |= 1 << i
	c := f.s.c
	if i == f.g.self {
		c.submit(f.p, &f.m, inline, f.s)
		if inline {
			f.s.flush()
		}
		return true
	}
	c.counters.Forwarded.Add(1)
	call := c.call()
	call.Completion, call.Index = f, i
	call.Request = message.Request{Kind: message.Mutate, Partition: f.p, Epoch: f.g.conf.Epoch, Hash: f.m.hash,
		Key: f.m.op.Key, Op: f.m.op, Timeout: max(time.Until(f.m.deadline), time.Millisecond)}
	if c.opts.Flights != nil {
		if f.m.context == (flight.Context{}) {
			f.m.context = flight.NewContext()
		}
		f.sent = f.m.began
		if f.tried != 1<<i { // not the first one
			f.sent = clock.Now()
		}
		f.span = flight.Span()
		call.Trace = f.m.context.From(f.span)
	}
	r := f.g.members[i].replica
	r.Send(call)
	c.recycle(call)
	if inline {
		r.Flush()
	} else {
		f.s.touch(r, false)
	}
	return true
}

// Done takes the answer of another coordinator. Once decided, f may be in use again.
func (f *forward) Done(call *message.Call) {
	rep := &call.Reply
	if c := f.s.c; c.opts.Flights != nil && len(f.m.steps) < maxSteps {
		f.m.steps = append(f.m.steps, flight.Step{Node: f.g.members[call.Index].id, Kind: message.Mutate, Sent: f.sent - f.m.began, Span: f.span,
			Answer: flight.Answer{At: max(came(rep.Came)-f.m.began, 1), Timing: rep.Timing, Status: rep.Status}})
	}
	switch {
	case rep.Status == message.OK && rep.Result.Status != record.NoStatus:
		f.m.decide(rep.Result)
	case rep.Status.Refused():
		f.m.decide(record.Result{}) // nothing was done: finish asks another coordinator
	default:
		f.s.c.counters.Unknown.Add(1)
		f.m.decide(record.Result{Status: record.Unknown, Detail: "the coordinator did not answer"})
	}
}

// mutated implements the lane's callback.
func (f *forward) mutated(*mutation) {
	if f.s.pending.Add(-1) == 0 {
		select {
		case f.s.wake <- struct{}{}:
		default:
		}
	}
}

// finish waits no more than it must: the mutation is decided, or was refused and goes elsewhere.
func (s *Session) finish(f *forward, deadline time.Time) record.Result {
	for f.m.res.Status == record.NoStatus {
		if !time.Now().Before(deadline) {
			return record.Result{Status: record.Unavailable, Detail: whyDeadline}
		}
		s.pending.Store(1)
		f.m.decided = false
		f.dispatch(true)
		<-s.wake
	}
	return f.m.res
}

// identity has the favoured coordinator read by a round of its own.
func (s *Session) identity(op *record.Op, hash uint64, deadline time.Time) (record.Result, bool) {
	p, g := s.c.group(hash)
	s.pending.Store(1)
	get := *op
	f := s.mutate(p, g, &get, hash, deadline, true)
	<-s.wake
	res := s.finish(f, deadline)
	return res, res.Status == record.Found || res.Status == record.NotFound
}

// Forwarded answers a Mutate that another node sent here, perhaps after it has returned. It keeps nothing of call.
func (c *Coordinator) Forwarded(call *message.Call) {
	call.Reply = message.Reply{Status: message.OK}
	p, g := c.group(call.Hash)
	switch {
	case g == nil || g.self < 0:
		call.Reply.Status = message.NotReplica
	case !g.members[g.self].replica.Healthy():
		call.Reply.Status = message.NotVoting
	case !call.Op.Kind.Valid() || p != call.Partition:
		call.Reply.Status = message.Invalid
	default:
		f, op := c.forwardeds.Get().(*forwarded), call.Op
		f.kv = append(append(f.kv[:0], op.Key...), op.Value...)
		op.Key, op.Value = f.kv[:len(op.Key):len(op.Key)], f.kv[len(op.Key):]
		// The answer needs some of the time for its way back; nobody gets more than a client here.
		timeout := min(call.Timeout, c.opts.Timeout)
		began := came(call.Request.Came)
		deadline := clock.Time(began + timeout - timeout/16)
		f.done, f.index, f.p = call.Completion, call.Index, call.Partition
		f.m = mutation{op: op, hash: call.Hash, deadline: deadline, attempts: f.m.attempts[:0], value: f.m.value[:0], done: f,
			began: began, context: flight.Context(call.Trace), steps: f.m.steps[:0]}
		c.submit(p, &f.m, false, nil)
		return
	}
	call.Completion.Done(call)
}

// forwarded is a mutation that another node sent here.
type forwarded struct {
	c     *Coordinator
	m     mutation
	done  message.Completion
	index int
	p     ring.Partition
	kv    []byte // the operation's key and value
}

// mutated implements the lane's callback: nobody else has m any more.
func (f *forwarded) mutated(m *mutation) {
	if f.c.opts.Flights != nil {
		m.keep(f.c.opts.Flights, f.p, &m.res, 0, came(m.heard)-m.began)
	}
	call := f.c.call()
	call.Index, call.Reply = f.index, message.Reply{Status: message.OK, Result: m.res}
	f.done.Done(call)
	f.c.recycle(call)
	if cap(f.kv) <= keepBuffer && cap(m.value) <= keepBuffer {
		f.done, m.op = nil, record.Op{}
		f.c.forwardeds.Put(f)
	}
}
