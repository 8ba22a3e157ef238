package placement

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Replica takes messages for one node: the local replica, or the link to a peer.
type Replica interface {
	Send(call *message.Call)
	Flush()
	Healthy() bool
}

// Local is this node's own replica.
type Local interface {
	// Learn stores a record that another replica holds, unless there is a newer state here. It may
	// wait for the disk before it returns; the call's completion hears when it is staged and durable.
	Learn(call *message.Call)
	// Pulled, MarkPulled: see replica.Replica.
	Pulled(p ring.Partition, epoch uint32) bool
	MarkPulled(p ring.Partition, epoch uint32, fence record.Ballot, done func(error))
}

// Options of NewMover.
type Options struct {
	Self       ring.NodeID
	Partitions int
	Quorum     ring.Quorum
	// Configuration is what this node knows of a partition.
	Configuration func(ring.Partition) ring.Configuration
	// Adopt takes a newer one, durably, and does not wait for that.
	Adopt func(ring.Partition, ring.Configuration)
	// Peer is the way to a node, this one included.
	Peer  func(ring.NodeID) Replica
	Local Local
	// Decide makes value the value of key, unless it has one, and tells the value that it has then, for
	// good: one register of the cluster. Its errors mean: not known, ask again.
	Decide func(ctx context.Context, key, value []byte) (chosen []byte, err error)
	// Plan says which nodes should hold each partition, by preference, given the configurations of now (the
	// mover's memory, valid until it returns); nil if that is not this node's to say, or all is well. One node should plan at a time, because plans of
	// nodes that see different things would undo each other's; that is all that hangs on it.
	Plan func(current []ring.Configuration) [][]ring.NodeID
	// Gone tells, since the last Plan that answered, whether a node is to hold nothing: a move to it is
	// taken back. nil: no node is.
	Gone func(ring.NodeID) bool
	// Everybody is the nodes that are told of new configurations beside those concerned, so that each
	// can plan, and asked for those they know; nil for nobody.
	Everybody func() []ring.NodeID
	// Preload, if not nil, has take called with records that a snapshot of p holds, and returns when there are no more, or with the
	// first error of take. The snapshot must be the newest that is complete at the time of the call, and dead records must be purged only
	// once they are in one, as such, that is complete. take's slices are the caller's again when it returns.
	Preload func(ctx context.Context, p ring.Partition, take func(key, enc []byte) error) error
	// Moves bounds the partitions that move at a time.
	Moves int
	// Pacer of what is taken over; nil for none.
	Pacer *Pacer
	// Timeout of one message.
	Timeout time.Duration
	// Tick is how often to look for something to do.
	Tick   time.Duration
	Logger *slog.Logger
	// Without switches safety rules off. Only the simulator sets it.
	Without Rule
}

// Rule names a safety rule that the simulator can switch off, to show that it would notice.
type Rule uint8

const (
	// RuleDecide: a partition's members decide the next configuration among themselves.
	RuleDecide Rule = 1 << iota
	// RuleJoint: a move goes through a joint configuration.
	RuleJoint
	// RulePulled: a joint configuration ends only when its new members have what the old ones held.
	RulePulled
	// RuleLookLate: what a snapshot holds is loaded from the newest there is once an old member follows the joint configuration.
	RuleLookLate
	// RuleGeneration: what is of an earlier generation of a partition is not loaded.
	RuleGeneration
)

// Mover moves partitions: it decides their next configurations with their members, pulls what this
// node is to hold, and ends moves that anybody began. Rival movers are harmless, and so is the end of
// one at any moment: another finishes (CONSISTENCY: "Who owns a partition"). Safe for concurrent use.
type Mover struct {
	o       Options
	mu      sync.Mutex
	busy    map[ring.Partition]bool          // driven here
	pulls   map[ring.Partition]bool          // pulled here
	undone  map[ring.Partition]bool          // taken back here
	gathers map[ring.Partition]*gathering    // see AnswerGather
	life    context.Context                  // Run's, while it runs
	todo    map[ring.Partition][]ring.NodeID // planned; Run's own, as are the next four
	seen    []ring.Configuration             // what the last plan was made of; its memory is used again
	ready   time.Time                        // when the last plan was ready,
	took    time.Duration                    // and how long that took
	joint   map[ring.Partition]bool          // that move, as seen last
	woken   map[ring.Partition]bool          // to be looked at
	wake    chan struct{}                    // room for one
	loaded  map[ring.Partition]uint32        // by the epoch for which a snapshot was tried
	heard   map[ring.NodeID]bool             // who has told all configurations it knows
	older   map[ring.NodeID]bool             // who cannot tell, for its build is too old
	next    int                              // to be asked for them
	tasks   sync.WaitGroup

	counters Counters
}

// NewMover makes a mover; it starts nothing.
func NewMover(o Options) *Mover {
	return &Mover{o: o, busy: map[ring.Partition]bool{}, pulls: map[ring.Partition]bool{}, undone: map[ring.Partition]bool{}, gathers: map[ring.Partition]*gathering{},
		joint: map[ring.Partition]bool{}, woken: map[ring.Partition]bool{}, wake: make(chan struct{}, 1), heard: map[ring.NodeID]bool{}, older: map[ring.NodeID]bool{}, loaded: map[ring.Partition]uint32{}}
}

// askPause is how long a node that has not pulled is left alone, at first.
const askPause = 5 * time.Millisecond

func (m *Mover) has(r Rule) bool { return m.o.Without&r == 0 }

// Run looks for something to do until ctx ends, and returns when all it began has ended.
func (m *Mover) Run(ctx context.Context) error {
	defer m.tasks.Wait()
	m.live(ctx)
	defer m.dies()
	tick := time.NewTicker(m.o.Tick)
	defer tick.Stop()
	m.tasks.Go(func() { m.learn(ctx) })
	m.lookAtAll(ctx)
	for {
		m.start(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
			m.lookAtWoken(ctx)
		case <-tick.C:
			m.plan(ctx)
			m.lookAtAll(ctx)
		}
	}
}

func (m *Mover) lookAtAll(ctx context.Context) {
	for p := range ring.Partition(m.o.Partitions) {
		m.look(ctx, p)
	}
}

// lookAtWoken looks at the partitions that Wake named, and at those that move: there may be room for
// them now. All of them would take the longer the more there are, at each of the cluster's moves.
func (m *Mover) lookAtWoken(ctx context.Context) {
	m.mu.Lock()
	woken := m.woken
	m.woken = map[ring.Partition]bool{}
	m.mu.Unlock()
	maps.Copy(woken, m.joint)
	for _, p := range slices.Sorted(maps.Keys(woken)) {
		m.look(ctx, p)
	}
}

// dies ends it: nothing is begun by others' messages any more.
func (m *Mover) dies() {
	m.mu.Lock()
	m.life = nil
	m.mu.Unlock()
}

// live says what those that are begun by others' messages live by.
func (m *Mover) live(ctx context.Context) {
	m.mu.Lock()
	m.life = ctx
	m.mu.Unlock()
}

const (
	// learnEvery is how often a node is asked for its configurations, once all have been.
	learnEvery = time.Second
	// learnAll is the time in which all are asked at first, if they are many.
	learnAll = 10 * time.Second
)

// learn keeps the configurations up to date until ctx ends.
func (m *Mover) learn(ctx context.Context) {
	for {
		m.Learn()
		pause := learnEvery
		if m.o.Everybody != nil && m.curious() {
			pause = min(m.o.Tick/4, learnAll/time.Duration(len(m.o.Everybody())+1))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// Wake has Run look at p at once: for whoever knows that a configuration of it was adopted. It does not
// block. Without it Run looks at each tick.
func (m *Mover) Wake(p ring.Partition) {
	m.mu.Lock()
	m.woken[p] = true
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// look begins what is to be done for p, if there is room.
func (m *Mover) look(ctx context.Context, p ring.Partition) {
	c := m.o.Configuration(p)
	if len(c.Next) == 0 {
		delete(m.joint, p)
		return
	}
	m.joint[p] = true
	if slices.Contains(c.Next, m.o.Self) && !m.o.Local.Pulled(p, c.Epoch) {
		m.begin(ctx, m.pulls, p, c, func(ctx context.Context) error { return m.pull(ctx, p, c) }, "pull")
	}
	if m.drives(c) {
		m.begin(ctx, m.busy, p, c, func(ctx context.Context) error { return m.finish(ctx, p, c) }, "move")
	}
}

func names(ids []ring.NodeID) (names []string) {
	for _, id := range ids {
		names = append(names, string(id))
	}
	return names
}

// planRest bounds the time that goes into plans: after each, this many times what it took.
const planRest = 9

// plan asks anew where partitions should be.
func (m *Mover) plan(ctx context.Context) {
	// A large cluster takes its time to plan. Meanwhile what was planned goes on, whatever comes of it.
	if m.o.Plan == nil || time.Since(m.ready) < planRest*m.took || !m.informed() {
		return
	}
	began := time.Now()
	defer func() { m.ready = time.Now(); m.took = m.ready.Sub(began) }()
	if m.seen == nil {
		m.seen = make([]ring.Configuration, m.o.Partitions)
	}
	current := m.seen
	for p := range current {
		current[p] = m.o.Configuration(ring.Partition(p))
	}
	m.todo = map[ring.Partition][]ring.NodeID{}
	for p, target := range m.o.Plan(current) {
		if c := current[p]; len(c.Next) == 0 && len(target) > 0 && !slices.Equal(target, c.Members) {
			m.todo[ring.Partition(p)] = target
		}
	}
	for p, c := range current {
		if m.o.Gone != nil && slices.ContainsFunc(c.Next, m.o.Gone) {
			m.begin(ctx, m.undone, ring.Partition(p), c, func(ctx context.Context) error { return m.Undo(ctx, ring.Partition(p)) }, "undo")
		}
	}
}

// start begins planned moves, as many as may go on at once.
func (m *Mover) start(ctx context.Context) {
	if len(m.todo) == 0 {
		return
	}
	room := m.o.Moves - m.moving()
	for p, target := range m.todo {
		if room <= 0 {
			return
		}
		joint := m.o.Configuration(p)
		if len(joint.Next) == 0 {
			joint = ring.Configuration{Epoch: joint.Epoch + 1, Members: joint.Members, Next: target}
		}
		if m.begin(ctx, m.busy, p, joint, func(ctx context.Context) error { return m.Move(ctx, p, target) }, "move") {
			delete(m.todo, p)
			room--
		}
	}
}

// moving counts the partitions that move, and those whose first step is being decided by this node.
func (m *Mover) moving() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	count := len(m.joint)
	for p := range m.busy {
		if !m.joint[p] {
			count++
		}
	}
	return count
}

// drives reports whether it is this node's turn to move a partition of that configuration: the first
// healthy member's, by this node's hints. It is no right: any node may.
func (m *Mover) drives(c ring.Configuration) bool {
	for _, id := range c.Members {
		if id == m.o.Self {
			return true
		}
		if m.o.Peer(id).Healthy() {
			return false
		}
	}
	return false
}

// begin runs do, unless it runs already for p or there is no room. All that nodes do for one joint configuration is one trace.
func (m *Mover) begin(ctx context.Context, running map[ring.Partition]bool, p ring.Partition, joint ring.Configuration, do func(context.Context) error, what string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if running[p] || len(running) >= 2*m.o.Moves {
		return false
	}
	running[p] = true
	m.tasks.Go(func() {
		ctx, end := flight.Work(ctx, what, "move "+string(AppendConfiguration(binary.BigEndian.AppendUint32(nil, uint32(p)), joint)), nil, attribute.Int("kai.partition", int(p)), attribute.Int("kai.epoch", int(joint.Epoch)),
			attribute.StringSlice("kai.members", names(joint.Members)), attribute.StringSlice("kai.members.next", names(joint.Next)))
		err := do(ctx)
		end(err)
		if err != nil && !errors.Is(err, context.Canceled) {
			m.o.Logger.DebugContext(ctx, what+" interrupted", "partition", p, "error", err)
		}
		m.mu.Lock()
		delete(running, p)
		m.mu.Unlock()
	})
	return true
}

// ErrShrinks refuses a move after which members that stay could miss what counted: they would have to
// learn it beside their own promises, which only new members may.
var ErrShrinks = errors.New("placement: too few replicas would be left")

// Move begins to move p to the nodes of next: it makes the configuration joint. If somebody else decided
// otherwise, it adopts that. Somebody's Run ends the move.
func (m *Mover) Move(ctx context.Context, p ring.Partition, next []ring.NodeID) error {
	c := m.o.Configuration(p)
	if len(c.Next) > 0 {
		return m.finish(ctx, p, c)
	}
	joint := ring.Configuration{Epoch: c.Epoch + 1, Members: c.Members, Next: next}
	for _, id := range next {
		if slices.Contains(c.Members, id) && needsPull(joint, id, m.o.Quorum) {
			return fmt.Errorf("%w: partition %d from %d replicas to %d", ErrShrinks, p, len(c.Members), len(next))
		}
	}
	if !m.has(RuleJoint) {
		joint.Members, joint.Next = next, nil
	}
	return m.advance(ctx, p, joint)
}

// Undo takes the move of p back: the old members become the members again. That is safe at any time,
// since all that was chosen meanwhile a quorum of the old members has, too. Rivals may have finished
// the move instead.
func (m *Mover) Undo(ctx context.Context, p ring.Partition) error {
	c := m.o.Configuration(p)
	if len(c.Next) == 0 {
		return nil
	}
	err := m.advance(ctx, p, ring.Configuration{Epoch: c.Epoch + 1, Members: c.Members})
	if err == nil {
		m.counters.Undone.Add(1)
	}
	return err
}

// finish ends the move of p, once all its new members have pulled it.
func (m *Mover) finish(ctx context.Context, p ring.Partition, c ring.Configuration) error {
	for _, id := range c.Next {
		if !m.has(RulePulled) || !needsPull(c, id, m.o.Quorum) {
			continue
		}
		for pause := askPause; ; pause = min(2*pause, m.o.Tick) {
			status := m.ask(p, c, id)
			if status == message.OK {
				break
			}
			// Behind: it was told the configuration just now.
			if status != message.Busy && status != message.WrongEpoch || m.o.Configuration(p).Epoch != c.Epoch {
				return fmt.Errorf("node %s has not pulled partition %d: %s", id, p, status)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
		}
	}
	err := m.advance(ctx, p, ring.Configuration{Epoch: c.Epoch + 1, Members: c.Next})
	if err == nil {
		m.counters.Ended.Add(1)
	}
	return err
}

// needsPull reports whether the new member id must pull before the joint configuration c may end. One
// that was a member already may stay without what it missed: at most n-W of the old members missed a
// write that counted, and if that is below the new R, every read quorum of the new members has one that
// did not.
func needsPull(c ring.Configuration, id ring.NodeID, q ring.Quorum) bool {
	before, after := q.For(len(c.Members)), q.For(len(c.Next))
	return !slices.Contains(c.Members, id) || before.N-before.W >= after.R
}

// ask asks a new member whether it has pulled; one that is behind is told the configuration.
func (m *Mover) ask(p ring.Partition, c ring.Configuration, id ring.NodeID) message.Status {
	reply := m.send(id, message.Request{Kind: message.Pulled, Partition: p, Epoch: c.Epoch})
	if reply.Status == message.WrongEpoch {
		if reply.Configuration.Epoch > c.Epoch {
			m.o.Adopt(p, reply.Configuration)
		} else {
			m.tell(p, c, id)
		}
	}
	return reply.Status
}

// advance has c decided as the successor of the configuration before it, and tells everybody concerned
// what was decided.
func (m *Mover) advance(ctx context.Context, p ring.Partition, c ring.Configuration) error {
	chosen := c
	if m.has(RuleDecide) {
		value, err := m.o.Decide(ctx, DecisionKey(p, c.Epoch, m.o.Partitions), AppendConfiguration(nil, c))
		if err != nil {
			return fmt.Errorf("configuration %d of partition %d is not decided: %w", c.Epoch, p, err)
		}
		if chosen, err = DecodeConfiguration(value); err != nil {
			return err
		}
	}
	m.o.Logger.DebugContext(ctx, "partition moves", "partition", p, "epoch", chosen.Epoch, "members", chosen.Members, "next", chosen.Next)
	m.o.Adopt(p, chosen)
	m.tellAll(p, chosen, c.Members)
	return nil
}

// tell has a node adopt c; who misses it learns it from whoever asks him by a newer epoch.
func (m *Mover) tell(p ring.Partition, c ring.Configuration, id ring.NodeID) {
	call := &message.Call{Completion: nobody{}}
	call.Request = message.Request{Kind: message.Configure, Partition: p, Epoch: c.Epoch, Configuration: c, Timeout: m.o.Timeout}
	r := m.o.Peer(id)
	r.Send(call)
	r.Flush()
}

// send asks a node and waits; the reply's slices are copies.
func (m *Mover) send(id ring.NodeID, q message.Request) message.Reply {
	q.Timeout = m.o.Timeout
	w := &answer{done: make(chan message.Reply, 1)}
	call := &message.Call{Request: q, Completion: w}
	r := m.o.Peer(id)
	r.Send(call)
	r.Flush()
	return <-w.done
}

type answer struct{ done chan message.Reply }

// Done implements message.Completion.
func (a *answer) Done(call *message.Call) {
	reply := call.Reply
	reply.Record, reply.Items = slices.Clone(reply.Record), slices.Clone(reply.Items)
	a.done <- reply
}

type nobody struct{}

// Done implements message.Completion.
func (nobody) Done(*message.Call) {}
