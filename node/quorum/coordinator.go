// Package quorum coordinates requests over the replicas of a partition: quorum reads with write-back
// and CASPaxos rounds for mutations (CONSISTENCY: "The register"). See DESIGN.md.
package quorum

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Stamps issues stamps that no other call for the same partition, boot or slot ever issued. Ballots and versions of different
// partitions never meet, so theirs may be alike.
type Stamps interface {
	// Next may block while time is reserved on disk.
	Next(p ring.Partition, slot uint16) (record.Stamp, error)
	// TryNext is Next, or false if that would block or fail.
	TryNext(p ring.Partition, slot uint16) (record.Stamp, bool)
	// Observe makes later stamps of p higher than s, unless s is too far ahead of the clock.
	Observe(p ring.Partition, s record.Stamp)
}

// Rule names a safety rule that the simulator can switch off, to show that it would notice.
type Rule uint16

const (
	// RuleWriteBack: a read whose replies differ writes the newest back before it answers.
	RuleWriteBack Rule = 1 << iota
	// RuleDedupe: a mutation looks for its own earlier proposals before it proposes again.
	RuleDedupe
	// RuleSeal: a negative answer is written once an own proposal may lie on a minority.
	RuleSeal
	// RuleStickyNegative: no negative answer from the sticky state alone.
	RuleStickyNegative
	// RulePrepare: a ballot is promised by a quorum before it is used (without it: one-round-trip
	// writes stamped by the clock).
	RulePrepare
	// RuleUnknown: an operation that may have been proposed is never called "not applied".
	RuleUnknown
	// RuleWideSums: a wide promise is good only for what a read quorum holds alike.
	RuleWideSums
	// RuleWideOnce: a key is proposed at most once at the ballot of a wide promise.
	RuleWideOnce
)

// Options of New.
type Options struct {
	// Slot of this node in ballots and versions; SetSlot changes it.
	Slot   uint16
	Stamps Stamps
	// Wall tells the time for expiry and lineage; deadlines go by the monotonic clock.
	Wall func() time.Time
	// Timeout of a request: what is undecided then is answered as unavailable or unknown.
	Timeout time.Duration
	// MaxValue bounds values in bytes.
	MaxValue int
	// StickyKeys is how many keys can be written in one round trip by who wrote them last; 0 for
	// the default.
	StickyKeys int
	// WideAfter is how many prepares of single keys of a partition make the coordinator ask for a promise of all
	// of them; 0 for the default, negative for never.
	WideAfter int
	// Seed of the jitter between tries.
	Seed uint64
	// Adopt hears of newer configurations that replicas reported. It must not block, and calls
	// SetRoutes in the end.
	Adopt func(ring.Partition, ring.Configuration)
	// Hinter, if not nil, hears of replicas that missed a write.
	Hinter Hinter
	// Flights, if not nil, keeps what became of requests that were slow, failed, or found replicas that differ.
	Flights *flight.Recorder
	// Without switches safety rules off. Only the simulator sets it.
	Without Rule
	Logger  *slog.Logger
}

// Coordinator runs operations for the sessions of one node and for forwarded mutations. Safe for
// concurrent use; it starts goroutines only for the time of a mutation.
type Coordinator struct {
	lanes    lanes // first, for its cache lines
	opts     Options
	slot     atomic.Uint32
	routes   atomic.Pointer[Routes]
	sticky   sticky
	wides    wides
	rounds   sync.Pool // of *round
	reads    sync.Pool // of *readOp
	manies   sync.Pool // of *manyRead
	forwards sync.Pool // of *forward
	// forwardeds is a pool of *forwarded.
	forwardeds sync.Pool
	calls      sync.Pool // of *message.Call, to ask and to answer with
	latency    atomic.Int64
	tail       tail
	counters   Counters
}

// Counters count what the coordinator did since start.
type Counters struct {
	Gets, Mutations, Forwarded   atomic.Uint64
	UnreconciledGets, WriteBacks atomic.Uint64
	Hedges, Rounds, StickyRounds atomic.Uint64
	Retries, Seals, Unknown      atomic.Uint64
	Unavailable, Folded          atomic.Uint64
	// Wides counts the promises asked for of whole partitions, WideRounds the rounds that they saved a Prepare.
	Wides, WideRounds atomic.Uint64
}

// New makes a coordinator without routes: until SetRoutes everything is unavailable.
func New(opts Options) *Coordinator {
	c := &Coordinator{opts: opts}
	c.SetSlot(opts.Slot)
	c.routes.Store(&Routes{})
	c.rounds.New = func() any { return newRound(c) }
	c.reads.New = func() any { return newReadOp(c) }
	c.manies.New = func() any { return &manyRead{c: c} }
	c.forwards.New = func() any { return new(forward) }
	c.forwardeds.New = func() any { return &forwarded{c: c} }
	c.calls.New = func() any { return new(message.Call) }
	c.lanes.init()
	c.sticky.init(opts.StickyKeys)
	return c
}

// SetRoutes replaces the routes. Rounds under way end with those they began with.
func (c *Coordinator) SetRoutes(r *Routes) {
	c.wides.grow(r.len)
	c.routes.Store(r)
}

// Routes returns those set last; of no partitions before the first.
func (c *Coordinator) Routes() *Routes { return c.routes.Load() }

// SetSlot says which slot this node has. Before it has one of its own, it must be no replica.
func (c *Coordinator) SetSlot(slot uint16) { c.slot.Store(uint32(slot)) }

func (c *Coordinator) ownSlot() uint16 { return uint16(c.slot.Load()) }

// Counters returns the coordinator's counters.
func (c *Coordinator) Counters() *Counters { return &c.counters }

func (c *Coordinator) has(r Rule) bool { return c.opts.Without&r == 0 }

// group finds the partition of a hash and its group; nil before the cluster is founded.
func (c *Coordinator) group(hash uint64) (ring.Partition, *Group) {
	r := c.routes.Load()
	if r.len == 0 {
		return 0, nil
	}
	p := ring.PartitionOf(hash, r.len)
	return p, r.group(p)
}

// learn takes a configuration that a replica reported.
func (c *Coordinator) learn(p ring.Partition, g *Group, conf ring.Configuration) {
	if conf.Epoch > g.conf.Epoch && c.opts.Adopt != nil {
		c.opts.Adopt(p, conf)
	}
}

// configure tells a replica that is behind the configuration of g.
func (c *Coordinator) configure(p ring.Partition, g *Group, to int) {
	call := &message.Call{Completion: ignore{}}
	call.Request = message.Request{Kind: message.Configure, Partition: p, Epoch: g.conf.Epoch,
		Configuration: g.conf, Timeout: c.opts.Timeout}
	g.members[to].replica.Send(call)
	g.members[to].replica.Flush()
}

// call is one to ask or to answer with; whoever takes it fills its request, or its reply.
func (c *Coordinator) call() *message.Call { return c.calls.Get().(*message.Call) }

// recycle gives a call back.
func (c *Coordinator) recycle(call *message.Call) {
	call.Completion, call.Reply = nil, message.Reply{}
	call.Request = message.Request{}
	if cap(call.Room) > keepBuffer {
		call.Room = nil
	}
	c.calls.Put(call)
}

type ignore struct{}

func (ignore) Done(*message.Call) {}

const (
	minHedge = time.Millisecond
	detailNF = "the cluster is not founded yet"
)

// hedgeAfter is how long a read waits before it asks one more replica: well above what reads take.
func (c *Coordinator) hedgeAfter() time.Duration {
	d := time.Duration(c.latency.Load()) * 4
	return min(max(d, minHedge), c.opts.Timeout/4)
}

// observeEvery is how often a session tells its latency, at most: all of them write to one place, and a busy one has told
// enough.
const observeEvery = 4 * time.Millisecond

// observeLatency keeps a moving average of read latencies, and counts them for Tail.
func (c *Coordinator) observeLatency(d time.Duration) {
	old := c.latency.Load()
	if old == 0 {
		old = int64(d)
	}
	c.latency.Store(old + (int64(d)-old)/16)
	c.tail.counts[tailStep(d)].Add(1)
}

// Unreachable counts the partitions without a healthy read and write quorum, by the hints of now.
func (c *Coordinator) Unreachable() int {
	missing := 0
	seen := map[*Group]bool{}
	r := c.routes.Load()
	for p := range ring.Partition(r.len) {
		g := r.group(p)
		ok, known := seen[g]
		if !known {
			var healthy mask
			for i, m := range g.members {
				if m.replica.Healthy() {
					healthy |= 1 << i
				}
			}
			ok = g.reads(healthy) && g.writes(healthy)
			seen[g] = ok
		}
		if !ok {
			missing++
		}
	}
	return missing
}
