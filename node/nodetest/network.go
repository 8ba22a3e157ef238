package nodetest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/message"
	"kai/node/placement"
	"kai/node/ring"
)

// Faults of the network, in percent: of messages, and of the time in which a link is held for dead.
type Faults struct {
	Drop, Duplicate, Slow int
	Doubt                 int
}

// network carries encoded frames between nodes: delayed, reordered, lost, doubled, cut off.
type network struct {
	seed   uint64
	faults Faults

	mu    sync.Mutex
	count map[flow]uint64
	cut   map[[2]int]bool
	held  map[int]time.Time // paused nodes: until when nothing goes in or out
	sent  int
	read  [][]byte // memory of replies, used up: nobody may read it any more, or write to it
}

// flow is what goes one way between two nodes about one key. Choices are made by a flow's own count:
// operations on different keys may start at the same instant, in an order that nobody can foresee.
type flow struct {
	from, to int
	kind     message.Kind // 0 for replies
	key      string
}

func newNetwork(seed uint64, f Faults) *network {
	return &network{seed: seed, faults: f, count: map[flow]uint64{}, cut: map[[2]int]bool{}, held: map[int]time.Time{}}
}

// topic is what a call is about.
func topic(call *message.Call) string {
	if call.Kind == message.Configure {
		return fmt.Sprint("partition ", call.Partition, " epoch ", call.Request.Configuration.Epoch)
	}
	if call.Kind == message.ReadMany || call.Kind == message.Hints {
		return string(call.Request.Items)
	}
	if call.Kind == message.Transfer || call.Kind == message.Pulled || call.Kind == message.Sums || call.Kind == message.Gather ||
		call.Kind == message.Configurations || call.Kind == message.Digests {
		return fmt.Sprint("partition ", call.Partition, " epoch ", call.Epoch, " behind ", call.Key)
	}
	return string(call.Key)
}

// send delivers after a while, or not, or twice. deliver reports whether a second copy may follow:
// a link never repeats a request that the other side refused.
func (n *network) send(f flow, deliver func() bool) {
	n.mu.Lock()
	n.count[f]++
	c, cut := n.count[f], n.cut[[2]int{f.from, f.to}]
	held := max(time.Until(n.held[f.from]), time.Until(n.held[f.to]), 0)
	n.sent++
	n.mu.Unlock()
	r := rng{seed: mix(n.seed, uint64(f.from)+1000, uint64(f.to)+2000, uint64(f.kind), ring.Hash([]byte(f.key)), c)}
	delay := r.between(200*time.Microsecond, 3*time.Millisecond)
	if r.chance(n.faults.Slow) {
		delay = r.between(3*time.Millisecond, 120*time.Millisecond)
	}
	again := r.chance(n.faults.Duplicate)
	second := r.between(time.Millisecond, 100*time.Millisecond)
	if cut || r.chance(n.faults.Drop) {
		return
	}
	time.AfterFunc(held+delay, func() {
		if deliver() && again {
			time.AfterFunc(second, func() { deliver() })
		}
	})
}

// messages is how many were sent.
func (n *network) messages() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent
}

func (n *network) setCut(from, to int, on bool) {
	n.mu.Lock()
	if on {
		n.cut[[2]int{from, to}] = true
	} else {
		delete(n.cut, [2]int{from, to})
	}
	n.mu.Unlock()
}

func (n *network) hold(node int, d time.Duration) {
	n.mu.Lock()
	n.held[node] = time.Now().Add(d)
	n.mu.Unlock()
}

// link is one incarnation's way to one node; it meets quorum.Replica. Requests and replies cross it
// as bytes, through the real codec.
type link struct {
	c        *Cluster
	from     *incarnation
	to       int
	mu       sync.Mutex
	nextID   uint64
	pending  map[uint64]*outgoing
	count    map[flow]uint64
	lastSeen time.Time
}

type outgoing struct {
	call  *message.Call
	key   []byte
	timer *time.Timer
}

func newLink(c *Cluster, from *incarnation, to int) *link {
	return &link{c: c, from: from, to: to}
}

// Flush has nothing to do: every message goes by itself.
func (l *link) Flush() {}

// missed is the silence after which a link without anything to wait for is held for dead.
const missed = 750 * time.Millisecond

// Healthy goes by silence, as heartbeats would, and is wrong for a while now and then: it is a hint,
// and rival coordinators are what the protocol must bear.
func (l *link) Healthy() bool {
	window := uint64(time.Since(l.c.begun) / (20 * time.Millisecond))
	if doubt := l.c.Faults.Doubt; doubt > 0 && mix(l.c.seed, 7, uint64(l.from.index), uint64(l.to), window)%100 < uint64(doubt) {
		return false
	}
	// Nobody needs to ask a node that is gone for good: its heartbeats are missed.
	if down := l.c.nodes[l.to].down.Load(); down > 0 && time.Since(l.c.begun)-time.Duration(down) > missed {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) == 0 {
		return true
	}
	return l.lastSeen.IsZero() || time.Since(l.lastSeen) < 150*time.Millisecond
}

// Send encodes the request and starts its timeout.
func (l *link) Send(call *message.Call) {
	if !l.from.alive() {
		call.Reply = message.Reply{Status: message.TimedOut}
		call.Completion.Done(call)
		return
	}
	if to := l.c.nodes[l.to].current(); call.Since() > l.from.protocol || to != nil && call.Since() > to.protocol {
		call.Reply = message.Reply{Status: message.Unsupported}
		call.Completion.Done(call)
		return
	}
	l.mu.Lock()
	if l.pending == nil { // most links of a large cluster are never used
		l.pending, l.count = map[uint64]*outgoing{}, map[flow]uint64{}
	}
	l.nextID++
	id := l.nextID
	if l.lastSeen.IsZero() {
		l.lastSeen = time.Now()
	}
	out := &outgoing{call: call.Keep(), key: slices.Clone(call.Key)}
	way := flow{l.from.index, l.to, call.Kind, topic(call)}
	l.count[way]++
	// The fraction keeps timeouts from coinciding with each other.
	out.timer = time.AfterFunc(call.Timeout+time.Duration(mix(l.c.seed, uint64(l.to), uint64(call.Kind), call.Hash, l.count[way])%1000), func() {
		l.answer(id, func(r *message.Reply) { *r = message.Reply{Status: message.TimedOut} })
	})
	l.pending[id] = out
	l.mu.Unlock()
	frame := message.AppendRequest(nil, id, &call.Request)
	l.c.net.send(way, func() bool { return l.c.deliver(l, frame) })
}

// answer completes a pending call, once.
func (l *link) answer(id uint64, fill func(*message.Reply)) {
	l.mu.Lock()
	out := l.pending[id]
	delete(l.pending, id)
	l.mu.Unlock()
	if out == nil {
		return
	}
	out.timer.Stop()
	fill(&out.call.Reply)
	out.call.Completion.Done(out.call)
}

// reset is what a broken connection does: whatever is unanswered stays so.
func (l *link) reset() {
	l.mu.Lock()
	ids := slices.Sorted(maps.Keys(l.pending))
	l.mu.Unlock()
	for _, id := range ids {
		l.answer(id, func(r *message.Reply) { *r = message.Reply{Status: message.TimedOut} })
	}
}

// receive takes a reply frame.
func (l *link) receive(frame []byte) {
	if !l.from.alive() {
		return
	}
	l.mu.Lock()
	l.lastSeen = time.Now()
	l.mu.Unlock()
	h, err := message.ParseHead(frame)
	if err != nil {
		panic(fmt.Sprintf("nodetest: reply: %v", err))
	}
	l.mu.Lock()
	out := l.pending[h.ID]
	l.mu.Unlock()
	if out == nil {
		return
	}
	frame = slices.Clone(frame)
	l.answer(h.ID, func(r *message.Reply) {
		if _, err := message.ParseReply(frame, out.key, r); err != nil {
			panic(fmt.Sprintf("nodetest: reply: %v", err))
		}
	})
	l.c.net.useUp(frame)
}

// usedUp fills memory that is a link's again, so that whoever still reads it is seen by what he does.
const usedUp = 0xdb

func (n *network) useUp(frame []byte) {
	for i := range frame {
		frame[i] = usedUp
	}
	n.mu.Lock()
	n.read = append(n.read, frame)
	n.mu.Unlock()
}

// checkUsedUp panics if somebody wrote to a link's memory.
func (n *network) checkUsedUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, frame := range n.read {
		for _, b := range frame {
			if b != usedUp {
				panic("nodetest: somebody keeps a reply's memory and writes to it")
			}
		}
	}
}

// deliver hands a request frame to the node at the end of l.
func (c *Cluster) deliver(l *link, frame []byte) bool {
	inc := c.nodes[l.to].current()
	if inc == nil || !inc.alive() {
		return false
	}
	call := &message.Call{}
	id, err := message.ParseRequest(append([]byte(nil), frame...), &call.Request)
	if err != nil {
		panic(fmt.Sprintf("nodetest: request: %v", err))
	}
	call.Hash = ring.Hash(call.Key)
	call.Request.Op.Key = call.Key
	var refused atomic.Bool
	about := topic(call)
	call.Completion = completion(func(call *message.Call) {
		refused.Store(call.Reply.Status.Refused())
		reply := message.AppendReply(nil, id, &call.Reply)
		if inc.alive() {
			c.net.send(flow{l.to, l.from.index, 0, about}, func() bool { l.receive(reply); return true })
		}
	})
	if call.Kind == message.Mutate {
		inc.coordinator.Forwarded(call)
		useUp(call)
		return false // a link delivers a mutation at most once
	}
	switch call.Kind {
	case message.Hints:
		inc.repairer.Pull(call)
		useUp(call)
		return true
	case message.Gather:
		inc.mover.AnswerGather(call)
	case message.Configurations:
		placement.Newer(call, c.Partitions, inc.table.Configuration)
		call.Completion.Done(call)
	case message.Digests:
		placement.Differing(call, c.Partitions, inc.table.Configuration)
		call.Completion.Done(call)
	default:
		inc.replica.Send(call)
		useUp(call)
	}
	return !refused.Load()
}

// useUp spoils a call that is a link's again, since whoever it was handed to has returned.
func useUp(call *message.Call) {
	for _, b := range [][]byte{call.Key, call.Request.Record, call.Request.Items, call.Op.Value, call.Room[:cap(call.Room)]} {
		for i := range b {
			b[i] = usedUp
		}
	}
	*call = message.Call{}
}

type completion func(*message.Call)

func (f completion) Done(c *message.Call) { f(c) }
