package quorum

import (
	"sync"
	"sync/atomic"
	"time"

	"kai/node/clock"
	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// readOp is one quorum read: the value from one replica, ballots from the others. It decides on
// whatever goroutine brings the deciding answer; what needs more than that (the replies differ) is
// left to the session's goroutine.
type readOp struct {
	c       *Coordinator
	pending *atomic.Int32 // of the session's segment
	wake    chan struct{}

	mu      sync.Mutex
	p       ring.Partition
	g       *Group
	key     []byte
	hash    uint64
	timeout time.Duration
	asked   mask
	ok      mask
	bad     mask
	equal   bool // all positive replies so far report the same ballot
	ballot  record.Ballot
	valued  int // which member was asked for the value; -1 when it failed
	have    bool
	value   []byte // the encoded record
	answers answers
	context flight.Context // zero unless it is sampled
	refs    atomic.Int32
	state   readState
	corrupt bool
	stale   bool // a replica goes by another configuration
	here    bool // readHere is to come; the session's own
}

type readState uint8

const (
	reading readState = iota
	agreed            // value (or absence) is decided
	differs           // the session must look closer
	failed            // no quorum can be had
)

func newReadOp(c *Coordinator) *readOp { return &readOp{c: c} }

// start chooses as many replicas as may be enough. The session asks them: this node's own with
// readHere, the others together with what its other reads want of them.
func (o *readOp) start(p ring.Partition, g *Group, key []byte, hash uint64, timeout time.Duration, s *Session) {
	o.pending, o.wake = &s.pending, s.wake
	o.p, o.g, o.hash, o.timeout = p, g, hash, timeout
	o.key = append(o.key[:0], key...) // a late retry may outlive Execute, and with it the caller's key
	o.asked, o.ok, o.bad = 0, 0, 0
	o.equal, o.have, o.corrupt, o.stale, o.valued, o.state = true, false, false, false, -1, reading
	o.ballot = record.Ballot{}
	o.value = o.value[:0]
	o.here = false
	o.refs.Store(1)
	o.answers.reset(o.c.opts.Flights, len(g.members))
	o.context = sample(o.c.opts.Flights, s.began)
	near := s.near(g)
	for !g.reads(o.asked) || !g.writes(o.asked) { // nobody else knows of o yet: no lock
		i, digest := o.book(near)
		if i < 0 {
			break
		}
		if o.here = o.here || i == g.self && g.members[i].reader != nil; i != g.self || !o.here {
			s.ask(o, i, digest)
		}
	}
}

// book chooses the next member to ask, rather one in near; -1 when none is left. o.mu is held.
func (o *readOp) book(near mask) (i int, digest bool) {
	i = o.g.pick(o.asked, near, o.hash>>8)
	if i < 0 {
		return i, false
	}
	digest = o.have || o.valued >= 0 && o.asked.has(o.valued) && !o.bad.has(o.valued)
	o.asked |= 1 << i
	o.refs.Add(1)
	if !digest {
		o.valued = i
	}
	return i, digest
}

// next is book if more is wanted, or if those asked that have not failed cannot be enough.
func (o *readOp) next(more bool) (i int, digest bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	hopeful := o.asked &^ o.bad
	if o.state != reading || !more && o.g.reads(hopeful) && o.g.writes(hopeful) {
		return -1, false
	}
	return o.book(0)
}

// readHere asks this node's own replica, if start chose it. now is the time, for flights; a batch of such reads takes microseconds.
func (o *readOp) readHere(now time.Duration) {
	if !o.here {
		return
	}
	// It was chosen first, and so for the value: nobody else writes to o.value, unless this is hedged.
	g := o.g
	s, b, enc, known := g.members[g.self].reader.ReadNow(o.value[:0], o.p, g.conf.Epoch, o.hash, o.key)
	if !known {
		o.send(g.self, false)
		return
	}
	o.value = enc
	o.answered(g.self, false, s, b, enc, message.Timing{}, now)
}

// send asks member i by a message of its own, without a lock: the answer may come before it returns.
func (o *readOp) send(i int, digest bool) {
	c, call := o.c, o.c.call()
	o.mu.Lock()
	if i < len(o.answers) {
		o.answers[i].sent = clock.Now()
	}
	call.Request = message.Request{Kind: message.Read, Digest: digest, Partition: o.p, Epoch: o.g.conf.Epoch, Hash: o.hash, Key: o.key,
		Timeout: o.timeout, Trace: o.answers.tell(i, &o.context)}
	to := o.g.members[i].replica
	o.mu.Unlock()
	call.Completion, call.Index = o, i<<1
	if digest {
		call.Index |= 1
	}
	to.Send(call) // o is not ours any more, unless the caller knows better
	c.recycle(call)
}

// Done takes the reply to a message of its own.
func (o *readOp) Done(call *message.Call) {
	rep := &call.Reply
	o.answered(call.Index>>1, call.Index&1 != 0, rep.Status, rep.Ballot, rep.Record, rep.Timing, o.c.heard(rep))
}

// answered takes one answer, which came at now. It copies what it keeps of enc, the encoded record, which is verified,
// or o.value itself.
func (o *readOp) answered(i int, digest bool, s message.Status, b record.Ballot, enc []byte, t message.Timing, now time.Duration) {
	o.mu.Lock()
	if o.state == reading {
		o.answers.say(i, now, digest, s, b, t)
		o.take(i, digest, s, b, enc)
		o.settle()
	}
	retry := o.state == reading && o.bad.has(i)
	o.mu.Unlock()
	if retry {
		if more, digest := o.next(false); more >= 0 {
			o.send(more, digest)
			o.g.members[more].replica.Flush()
		}
	}
	o.drop()
}

func (o *readOp) take(i int, digest bool, s message.Status, b record.Ballot, enc []byte) {
	bit := mask(1) << i
	if s != message.OK {
		o.bad |= bit
		o.corrupt = o.corrupt || s == message.Corrupt
		o.stale = o.stale || s == message.WrongEpoch
		return
	}
	if o.ok == 0 {
		o.ballot = b
	} else if o.ballot != b {
		o.equal = false
	}
	o.ok |= bit
	if !digest {
		o.have = true
		if len(enc) == 0 || len(o.value) == 0 || &enc[0] != &o.value[0] {
			o.value = append(o.value[:0], enc...)
		}
	}
}

// settle sees whether the replies so far decide. o.mu is held.
func (o *readOp) settle() {
	switch {
	case !o.equal:
		o.finish(differs)
	case o.g.reads(o.ok) && o.g.writes(o.ok) && (o.have || o.ballot.IsZero()):
		// All report one ballot, and they are a write quorum: that state is chosen.
		o.finish(agreed)
	case o.asked == o.g.all() && o.ok|o.bad == o.asked:
		// Among configurations a round goes between: it tells and learns them, and tries again.
		if o.g.reads(o.ok) || o.stale {
			o.finish(differs)
		} else {
			o.finish(failed)
		}
	}
}

// finish decides: state, value, ballot and corrupt never change after it, so that whoever has seen pending at 0 may read them
// without a lock.
func (o *readOp) finish(s readState) {
	o.state = s
	if o.pending.Add(-1) == 0 {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
}

// hedge asks one more replica, for the value if that is what is missing.
func (o *readOp) hedge() {
	o.mu.Lock()
	if !o.have {
		o.valued = -1
	}
	slow := o.asked &^ (o.ok | o.bad)
	o.mu.Unlock()
	if i, digest := o.next(true); i >= 0 {
		o.c.counters.Hedges.Add(1)
		for k := range o.g.members {
			if r, ok := o.g.members[k].replica.(interface{ Hedged() }); ok && slow.has(k) {
				r.Hedged()
			}
		}
		o.send(i, digest)
		o.g.members[i].replica.Flush()
	}
}

// expire gives up.
func (o *readOp) expire() {
	o.mu.Lock()
	if o.state == reading {
		o.finish(failed)
	}
	o.mu.Unlock()
}

// drop lets go of one reference; the last one returns o to the pool.
func (o *readOp) drop() {
	if o.refs.Add(-1) == 0 {
		if cap(o.value) > keepBuffer {
			o.value = nil
		}
		o.c.reads.Put(o)
	}
}

// readSlow reads a key whose replicas differ: it takes the newest state of a read quorum, has it
// accepted by a write quorum at its own ballot, and answers. When somebody proposes meanwhile, a
// round of the favoured coordinator decides. buf backs the value.
func (s *Session) readSlow(op *record.Op, hash uint64, deadline time.Time, buf []byte, context flight.Context) (record.Result, []byte) {
	c := s.c
	c.counters.UnreconciledGets.Add(1)
	why := whyDeadline
	for try := 0; ; try++ {
		left := time.Until(deadline)
		if left <= 0 {
			return c.undecidedRead(why), buf
		}
		if try > 0 {
			time.Sleep(min(minBackoff<<min(try, 5), left))
		}
		p, g := c.group(hash)
		timeout := min(left, c.opts.Timeout/4)
		req := message.Request{Kind: message.Read, Hash: hash, Key: op.Key}
		r := c.round(p, g, &req, readQuorum, timeout, context)
		s.closer = r.answers.steps(s.closer, g, r.kind, g.all(), r.began, s.began)
		won := r.won()
		if !won && r.corrupt != 0 {
			why = whyCorrupt
		}
		settled := won && (g.writes(r.atMax) || !c.has(RuleWriteBack))
		buf = append(buf[:0], r.state...)
		empty := r.max.IsZero()
		r.release()
		if !won {
			continue
		}
		if !settled && !empty {
			c.counters.WriteBacks.Add(1)
			w := c.round(p, g, &message.Request{Kind: message.Accept, Hash: hash, Key: op.Key, Record: buf}, writeQuorum, timeout, context)
			settled = w.won()
			s.closer = w.answers.steps(s.closer, g, w.kind, g.all(), w.began, s.began)
			w.release()
		}
		if settled {
			return c.result(op, buf, c.now()), buf
		}
		if res, ok := s.identity(op, hash, deadline); ok {
			buf = append(buf[:0], res.Value...)
			res.Value = buf
			return res, buf
		}
	}
}

func (c *Coordinator) undecidedRead(why string) record.Result {
	if why == whyCorrupt {
		return record.Result{Status: record.Corrupt, Detail: why}
	}
	c.counters.Unavailable.Add(1)
	return record.Result{Status: record.Unavailable, Detail: why}
}

// now is the time that records expire by.
func (c *Coordinator) now() uint32 { return uint32(c.opts.Wall().Unix()) }

// result reads an encoded record, checked by the codec or the store, as the answer to a get at now; its value
// aliases enc.
func (c *Coordinator) result(op *record.Op, enc []byte, now uint32) record.Result {
	if len(enc) == 0 {
		return record.Result{Status: record.NotFound}
	}
	var rec record.Record
	record.View(enc, &rec)
	res, _ := op.Apply(&rec, 0, now, c.opts.MaxValue)
	return res
}
