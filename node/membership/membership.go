// Package membership knows who is there: it gossips (memberlist), looks for peers without end,
// founds the cluster once, and publishes immutable views. DESIGN.md has the founding protocol.
package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"kai/node/ring"
)

// Membership is one node's part in its cluster. Its methods are safe for concurrent use.
type Membership struct {
	options Options
	log     *slog.Logger
	members *members
	genesis *genesis // belongs to the loop of Run

	view     atomic.Pointer[published]
	founding atomic.Pointer[ring.Founding]
	slot     atomic.Int32 // -1: none
	draining atomic.Bool
	told     atomic.Pointer[string] // the data that gossip holds of this node
	renewing chan struct{}          // full while gossip is given new data; a mutex would stop virtual time
	whenDone chan struct{}          // closed when founded

	grounds  chan Ground        // what the registry told; room for one
	claimed  chan ring.Founding // its answers to claims; room for one
	claiming bool               // one is under way; the loop's own

	inbox  chan []byte   // messages from peers; full: dropped
	outbox chan func()   // what would block the loop; full: dropped
	wake   chan struct{} // discovery should look at once; room for one
	failed chan error    // the first final error; room for one
	ran    atomic.Bool
	born   time.Time
	list   *memberlist.Memberlist
	nudge  chan struct{} // tick at once; room for one
	search atomic.Bool   // every seed has been asked
	stats  counters
	spoken map[string]time.Time
	speak  sync.Mutex // guards spoken
}

// published is a view and the channel that closes when it is the newest no more.
type published struct {
	view *ring.View
	next chan struct{}
}

type counters struct{ findFailures, joinFailures, refused, dropped atomic.Uint64 }

// Stats counts what went wrong since the process started.
type Stats struct {
	// FindFailures are look-ups of peers that failed, JoinFailures addresses that did not answer.
	FindFailures, JoinFailures uint64
	// Refused are nodes kept out, counted each time they come; Dropped are messages dropped
	// because a queue was full.
	Refused, Dropped uint64
}

const (
	queueLen = 256
	senders  = 4
)

// New checks the options, all at once, and loads the founding. It starts nothing. A node whose
// data directory belongs to a cluster of other settings is refused here, with both values.
func New(o Options) (*Membership, error) {
	o.Timing = o.Timing.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	g, err := newGenesis(&o)
	if err != nil {
		return nil, err
	}
	m := &Membership{
		options: o, log: o.Logger, born: time.Now(), members: newMembers(), genesis: g, whenDone: make(chan struct{}),
		inbox: make(chan []byte, queueLen), outbox: make(chan func(), queueLen), wake: make(chan struct{}, 1),
		grounds: make(chan Ground, 1), claimed: make(chan ring.Founding, 1),
		nudge: make(chan struct{}, 1), renewing: make(chan struct{}, 1), failed: make(chan error, 1), spoken: map[string]time.Time{},
	}
	self := o.Self
	self.Alive, self.ClusterID, self.Slot = true, "", -1
	m.slot.Store(-1)
	if f := g.founded(); f != nil {
		m.founding.Store(f)
		close(m.whenDone)
		self.ClusterID = f.ClusterID
	}
	m.members.known[self.ID] = &member{info: self, settings: o.settings(), expect: o.Expect, since: time.Now()}
	m.view.Store(&published{&ring.View{Serial: 1, Self: self.ID, Nodes: m.members.list(g.founded(), time.Now())}, make(chan struct{})})
	return m, nil
}

// View returns the newest view; never nil. It must not be changed.
func (m *Membership) View() *ring.View { return m.view.Load().view }

// Changed returns a channel that closes when the view that is newest now is so no more. Take it
// before View, and no change is missed.
func (m *Membership) Changed() <-chan struct{} { return m.view.Load().next }

// Founded returns the founding of the cluster, once there is one. It must not be changed.
func (m *Membership) Founded() (ring.Founding, bool) {
	if f := m.founding.Load(); f != nil {
		return *f, true
	}
	return ring.Founding{}, false
}

// WhenFounded returns a channel that closes when Founded has an answer.
func (m *Membership) WhenFounded() <-chan struct{} { return m.whenDone }

// Stats returns the counters.
func (m *Membership) Stats() Stats {
	return Stats{
		FindFailures: m.stats.findFailures.Load(), JoinFailures: m.stats.joinFailures.Load(),
		Refused: m.stats.refused.Load(), Dropped: m.stats.dropped.Load(),
	}
}

func (m *Membership) clusterID() string {
	if f := m.founding.Load(); f != nil {
		return f.ClusterID
	}
	return ""
}

// Admit says why a node must not take part: its disk was rolled back, or is a copy. It remembers those
// who may.
func (m *Membership) Admit(id ring.NodeID, boot, process uint64) error {
	told := start{boot, process}
	if seen, ok := m.members.admit(id, told); !ok {
		return fmt.Errorf("%w: %s", errOldBoot, told.against(seen))
	}
	return nil
}

// Run takes part until ctx ends, then says good-bye and returns nil; it returns an error as soon
// as this node must not go on: its disk fails, was rolled back or copied, or its settings are not
// those of the cluster it met. It may be called once.
func (m *Membership) Run(ctx context.Context) error {
	if m.ran.Swap(true) {
		return errors.New("membership: run twice")
	}
	list, err := memberlist.Create(m.gossipConfig())
	if err != nil {
		return fmt.Errorf("membership: gossip on %s: %w", m.options.Bind, err)
	}
	m.list = list

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var children sync.WaitGroup
	children.Go(func() { m.discover(ctx) })
	for range senders {
		children.Go(func() { m.sendAll(ctx) })
	}
	children.Go(func() { m.loop(ctx, &children) })
	if m.options.Registry != nil {
		children.Go(func() { m.survey(ctx) })
	}

	select {
	case <-ctx.Done():
	case err = <-m.failed:
		m.log.Error("membership ends: this node must not take part", "error", err)
	}
	cancel()
	if e := list.Leave(m.options.Timing.Leave); e != nil {
		m.log.Debug("good-bye not heard", "error", e)
	}
	children.Wait()
	if e := list.Shutdown(); e != nil {
		err = errors.Join(err, fmt.Errorf("membership: shut down: %w", e))
	}
	return err
}

// fail ends Run with err; only the first counts.
func (m *Membership) fail(err error) {
	select {
	case m.failed <- err:
	default:
	}
}

// loop owns the founding and the views.
func (m *Membership) loop(ctx context.Context, children *sync.WaitGroup) {
	tick := time.NewTicker(m.options.Timing.Founding)
	defer tick.Stop()
	for {
		var out []outgoing
		var err error
		select {
		case <-ctx.Done():
			return
		case b := <-m.inbox:
			out, err = m.receive(b)
		case <-tick.C: // also because the dead are forgotten by time alone
			out, err = m.tick()
			m.retell()
		case <-m.nudge:
			out, err = m.tick()
		case g := <-m.grounds:
			out, err = m.genesis.onGround(time.Now(), g)
		case f := <-m.claimed:
			if m.claiming = false; f.ClusterID != "" {
				out, err = m.genesis.onClaimed(time.Now(), &f)
			}
		case <-m.members.dirty:
		}
		if err != nil {
			m.fail(err)
			return
		}
		m.adopt()
		if f := m.genesis.claim; f != nil && !m.claiming {
			m.genesis.claim, m.claiming = nil, true
			children.Go(func() { m.claim(ctx, *f) })
		}
		for _, o := range out {
			if to, ok := m.members.address(o.to); ok {
				m.post(to, o.message)
			}
		}
		m.publish()
	}
}

// survey looks at the registry until there is a founding, more seldom after a while: looks cost money.
func (m *Membership) survey(ctx context.Context) {
	pause := m.options.Timing.Survey
	for ctx.Err() == nil && m.founding.Load() == nil {
		look, cancel := context.WithTimeout(ctx, m.options.Timing.Claim)
		ground, err := m.options.Registry.Ground(look)
		cancel()
		if err != nil && ctx.Err() == nil {
			m.log.Warn("the bucket does not tell whether the cluster is founded", "error", err)
		}
		if err == nil {
			select {
			case m.grounds <- ground:
			case <-ctx.Done():
			}
		}
		select {
		case <-ctx.Done():
		case <-m.whenDone:
		case <-time.After(pause):
			pause = min(pause*9/8, 5*m.options.Timing.Survey)
		}
	}
}

// claim asks the registry for a founding to be the one, and tells the loop what it answers: nothing after an error.
func (m *Membership) claim(ctx context.Context, f ring.Founding) {
	ctx, cancel := context.WithTimeout(ctx, m.options.Timing.Claim)
	defer cancel()
	chosen, err := m.options.Registry.Claim(ctx, f)
	if err != nil {
		m.log.Warn("founding not registered yet", "cluster_id", f.ClusterID, "error", err)
		chosen = ring.Founding{}
	}
	m.claimed <- chosen // there is room: one at a time
}

func (m *Membership) tick() ([]outgoing, error) {
	return m.genesis.tick(time.Now(), m.members.peers(m.options.Self.ID, m.clusterID()), m.search.Load())
}

func (m *Membership) receive(b []byte) ([]outgoing, error) {
	msg, err := decodeMessage(b)
	if err != nil {
		m.complain("", "", err)
		return nil, nil
	}
	if msg.Kind == outdated {
		return nil, m.doubt(start{msg.Boot, msg.Process})
	}
	return m.genesis.receive(time.Now(), msg)
}

// adopt makes a founding known that genesis has just reached.
func (m *Membership) adopt() {
	f := m.genesis.founded()
	if f == nil || m.founding.Load() != nil {
		return
	}
	m.founding.Store(f)
	m.members.update(m.options.Self.ID, func(o *member) { o.info.ClusterID = f.ClusterID })
	close(m.whenDone)
	m.renew()
}

// renew gossips what this node says of itself anew. One at a time: memberlist asks for the data first, and
// numbers it afterwards, so that of two at once the older data could get the greater number, and stay.
func (m *Membership) renew() {
	m.later(func() {
		m.renewing <- struct{}{}
		defer func() { <-m.renewing }()
		if err := m.list.UpdateNode(m.options.Timing.Stream); err != nil {
			m.log.Debug("gossip of this node's data is slow", "error", err)
		}
	})
}

// retell gossips anew if gossip holds something else of this node than it says: a renewal was dropped.
func (m *Membership) retell() {
	if told := m.told.Load(); told != nil && *told != string(m.ownMeta()) {
		m.renew()
	}
}

// ownMeta is what this node says of itself now.
func (m *Membership) ownMeta() []byte {
	return appendMeta(nil, m.options.meta(m.clusterID(), int(m.slot.Load()), m.draining.Load()))
}

// SetDraining says whether this node hands over what it holds, from now on. Run runs.
func (m *Membership) SetDraining(on bool) {
	m.draining.Store(on)
	m.members.update(m.options.Self.ID, func(o *member) { o.info.Draining = on })
	m.renew()
}

// SetSlot says which slot this node has, from now on: it may hold partitions. Run runs.
func (m *Membership) SetSlot(slot uint16) {
	m.slot.Store(int32(slot))
	m.members.update(m.options.Self.ID, func(o *member) { o.info.Slot = int(slot) })
	m.renew()
}

// publish makes a new view if anything in it is new.
func (m *Membership) publish() {
	old := m.view.Load()
	nodes := m.members.list(m.founding.Load(), time.Now())
	if slices.Equal(nodes, old.view.Nodes) {
		return
	}
	m.view.Store(&published{&ring.View{Serial: old.view.Serial + 1, Self: old.view.Self, Nodes: nodes}, make(chan struct{})})
	close(old.next)
}
