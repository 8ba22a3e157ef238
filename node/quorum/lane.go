package quorum

import (
	"bytes"
	"sync"
	"time"

	"kai/node/flight"
	"kai/node/record"
	"kai/node/ring"
)

// mutation is one operation on its way through this coordinator.
type mutation struct {
	op       record.Op
	hash     uint64
	deadline time.Time
	// attempts are the proposals that may have been accepted somewhere, with what they answer if
	// they turn out to be part of the state.
	attempts []attempt
	res      record.Result
	value    []byte // backs res.Value
	done     mutated
	decided  bool
	rewrite  bool // the state is written even if nothing changes
	// Of its flight:
	began   time.Duration
	heard   time.Duration // when the reply came that decided it; 0: it was decided otherwise
	context flight.Context
	hinted  bool
	steps   []flight.Step
}

type attempt struct {
	id  record.Version
	res record.Result
}

// mutated hears, once, that a mutation is decided. It must not block.
type mutated interface{ mutated(*mutation) }

// lane is the mutations of one key at this coordinator: one round at a time, and those who wait
// share the next one. Concurrent rounds of one coordinator would only outbid each other.
type lane struct {
	hash    uint64
	p       ring.Partition
	waiting []*mutation
	seed    uint64
	state   record.Record
	next    record.Record
	enc     []byte
	key     []byte
	// What follows only saves allocations.
	local localRead
	batch []*mutation
	res   []record.Result
	did   []bool
}

const (
	laneShards = 64
	// maxLane bounds the mutations waiting on one key; beyond it they are refused.
	maxLane = 4096
	// maxFold bounds the mutations that share a round.
	maxFold = 256
)

type lanes struct {
	shards [laneShards]laneShard // first, for its cache lines
	free   sync.Pool
	idle   chan *lane // unbuffered: taken by workers without one
}

// laneShard is a cache line, with room for the few lanes that it has at a time, by hash; the others are in a map, by key.
type laneShard struct {
	mu     sync.Mutex
	more   map[string]*lane
	hashes [3]uint64
	lanes  [3]*lane
}

func (s *laneShard) find(hash uint64, key []byte) *lane {
	for i, h := range s.hashes {
		if l := s.lanes[i]; h == hash && l != nil && bytes.Equal(l.key, key) {
			return l
		}
	}
	if len(s.more) == 0 {
		return nil
	}
	return s.more[string(key)]
}

func (s *laneShard) open(l *lane) {
	for i := range s.lanes {
		if s.lanes[i] == nil {
			s.hashes[i], s.lanes[i] = l.hash, l
			return
		}
	}
	if s.more == nil {
		s.more = map[string]*lane{}
	}
	s.more[string(l.key)] = l
}

func (s *laneShard) close(l *lane) {
	for i := range s.lanes {
		if s.lanes[i] == l {
			s.lanes[i] = nil
			return
		}
	}
	delete(s.more, string(l.key))
}

// shard is where the lanes of hash are.
func (l *lanes) shard(hash uint64) *laneShard { return &l.shards[hash%laneShards] }

func (l *lanes) init() {
	l.free.New = func() any { return new(lane) }
	l.idle = make(chan *lane)
}

// submit hands m to the lane of its key; m.done hears of it. With inline, a lane that has to be
// opened runs on this goroutine until m is decided. from, if any, flushes the links afterwards. The first mutation of a lane has its key.
func (c *Coordinator) submit(p ring.Partition, m *mutation, inline bool, from *Session) {
	s := c.lanes.shard(m.hash)
	s.mu.Lock()
	if l := s.find(m.hash, m.op.Key); l != nil {
		if len(l.waiting) < maxLane {
			l.waiting = append(l.waiting, m)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		m.decide(record.Result{Status: record.Unavailable, Detail: "too many mutations wait on this key"})
		return
	}
	l := c.lanes.free.Get().(*lane)
	l.key, l.hash, l.p = append(l.key[:0], m.op.Key...), m.hash, p
	l.seed = c.opts.Seed ^ m.hash
	l.waiting = l.waiting[:0]
	s.open(l)
	s.mu.Unlock()
	if c.tryExpress(l, m, from) {
		return
	}
	c.requeue(l, m)
	if inline {
		c.runLane(l, m)
	} else {
		c.work(l)
	}
}

// idleWorker is how long a worker waits for another lane. Workers keep their stacks, which a fresh
// goroutine has to grow for every mutation; and none is left a while after the last mutation.
const idleWorker = time.Second

// work hands l to an idle worker, or to a new one.
func (c *Coordinator) work(l *lane) {
	select {
	case c.lanes.idle <- l:
	default:
		go c.worker(l)
	}
}

func (c *Coordinator) worker(l *lane) {
	timer := time.NewTimer(idleWorker)
	defer timer.Stop()
	for {
		c.runLane(l, nil)
		timer.Reset(idleWorker)
		select {
		case l = <-c.lanes.idle:
		case <-timer.C:
			return
		}
	}
}

// runLane decides what waits in the lane until nothing does. When own is decided and others wait,
// another goroutine goes on.
func (c *Coordinator) runLane(l *lane, own *mutation) {
	s := c.lanes.shard(l.hash)
	for {
		s.mu.Lock()
		if len(l.waiting) == 0 {
			s.close(l)
			s.mu.Unlock()
			l.recycle()
			c.lanes.free.Put(l)
			return
		}
		if own != nil && own.decided {
			s.mu.Unlock()
			c.work(l)
			return
		}
		n := foldable(l.waiting)
		l.batch = append(l.batch[:0], l.waiting[:n]...)
		rest := copy(l.waiting, l.waiting[n:])
		clear(l.waiting[rest:])
		l.waiting = l.waiting[:rest]
		s.mu.Unlock()
		if n > 1 {
			c.counters.Folded.Add(uint64(n))
		}
		c.decide(l, l.batch)
	}
}

// foldable is how many of waiting may share a round, and with it a version. An answer that shows the
// version, which is the cas token, must tell the value that the round leaves behind: else a later
// cas by that token would overwrite a value its client never saw.
func foldable(waiting []*mutation) int {
	n := min(len(waiting), maxFold)
	wrote, shown := false, false
	for i, m := range waiting[:n] {
		switch m.op.Kind {
		case record.Get, record.GetAndTouch:
			shown = shown || wrote
		case record.Touch:
		default:
			if shown {
				return i
			}
			wrote = true
		}
	}
	return n
}

func (l *lane) recycle() {
	if cap(l.enc) > keepBuffer {
		l.enc = nil
	}
	if cap(l.waiting) > 64 {
		l.waiting = nil
	}
	if cap(l.local.room) > keepBuffer {
		l.local.room = nil
	}
	clear(l.res)
	l.state, l.next = record.Record{Recent: l.state.Recent[:0]}, record.Record{}
}

// decide answers m. It is called once; m is not the caller's any more afterwards.
func (m *mutation) decide(res record.Result) {
	m.value = append(m.value[:0], res.Value...)
	m.res = res
	m.res.Value = m.value
	m.decided = true
	m.done.mutated(m)
}

// give answers m as undecided: unknown when a proposal may have been accepted somewhere.
func (c *Coordinator) give(m *mutation, why string) {
	if len(m.attempts) > 0 && c.has(RuleUnknown) {
		c.counters.Unknown.Add(1)
		m.decide(record.Result{Status: record.Unknown, Detail: why})
		return
	}
	c.counters.Unavailable.Add(1)
	m.decide(record.Result{Status: record.Unavailable, Detail: why})
}
