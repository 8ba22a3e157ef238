package membership

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"kai/node/ring"
)

// genesis is one node's part in the founding of its cluster: a state machine without goroutines,
// clock or network, so that tests can drive it through every interleaving. DESIGN.md explains the
// protocol; the rules that carry its safety are marked RULE here.
//
// Methods return the messages to send, none of which may be lost for safety, all of which may be
// for a while: tick says again what matters. An error is final: the node must stop.
type genesis struct {
	self     ring.Node
	name     string // of the cluster
	settings settings
	expect   int
	store    FoundingStore
	log      *slog.Logger
	newID    func() string

	// registered: there is a registry. ground is what it told last, nil before that; claim is what it is to be asked for, nil for nothing.
	registered bool
	ground     *Ground
	claim      *ring.Founding

	state FoundingState
	// votes counts who voted for the own proposal; lost with the process, asked for again.
	votes map[ring.NodeID]bool
	// absent is since when a listed node that has not voted has been away.
	absent map[ring.NodeID]time.Time
	// quietUntil keeps a proposer that yielded from proposing again at once.
	quietUntil time.Time
	now        time.Time // of the last call
	spoken     map[string]time.Time
}

// outgoing is a message to a node.
type outgoing struct {
	to      ring.NodeID
	message message
}

// peer is what genesis needs to know of another live node.
type peer struct {
	Node      ring.Node
	ClusterID string
	Settings  settings
	Expect    int
}

const (
	// abandonAfter is how long a proposer waits for a listed node that is away before it gives
	// the proposal up for one with other nodes.
	abandonAfter = 30 * time.Second
	// yieldFor, and up to once more at random, is how long a proposer that met a rival waits.
	yieldFor = 3 * time.Second
	// sayEvery bounds how often the same complaint is logged.
	sayEvery = 10 * time.Second
	// askAtOnce is how many founded nodes a node asks for the founding at a time.
	askAtOnce = 3
)

// newGenesis loads what the node is bound to, and refuses a founding its settings disagree with.
func newGenesis(o *Options) (*genesis, error) {
	g := &genesis{
		self: o.Self.Node, name: o.Cluster, settings: o.settings(), expect: o.Expect, store: o.Store, log: o.Logger, registered: o.Registry != nil,
		newID: newClusterID, votes: map[ring.NodeID]bool{}, absent: map[ring.NodeID]time.Time{}, spoken: map[string]time.Time{},
	}
	var err error
	if g.state, err = o.Store.Load(); err != nil {
		return nil, fmt.Errorf("membership: load founding: %w", err)
	}
	if f := g.state.Founded; f != nil {
		if err := checkFounding(f); err != nil {
			return nil, fmt.Errorf("membership: founding on disk: %w", err)
		}
		if f.Name != o.Cluster {
			return nil, fmt.Errorf("membership: this node is configured for cluster %q, but its data directory belongs to cluster %q (%s): use that name, or another data directory", o.Cluster, f.Name, f.ClusterID)
		}
		if settingsOf(f) != g.settings {
			return nil, fmt.Errorf("membership: %w", disagreement(f, g.settings))
		}
	}
	if v := g.state.Vote; v != nil {
		if err := checkFounding(&v.Founding); err != nil {
			return nil, fmt.Errorf("membership: founding vote on disk: %w", err)
		}
		g.countOwn()
	}
	return g, nil
}

// founded returns the founding, nil before there is one.
func (g *genesis) founded() *ring.Founding { return g.state.Founded }

// own is this node's undecided proposal, or nil.
func (g *genesis) own() *ring.Founding {
	if v := g.state.Vote; v != nil && v.Proposer == g.self.ID {
		return &v.Founding
	}
	return nil
}

// claiming reports whether the registry may hold the own proposal. RULE: it is not abandoned then, whatever others say.
func (g *genesis) claiming() bool { return g.own() != nil && g.state.Vote.Claiming }

// save makes the state durable, then current. RULE: nothing is said before it is saved.
func (g *genesis) save(s FoundingState) error {
	if err := g.store.Save(s); err != nil {
		return fmt.Errorf("membership: save founding: %w", err)
	}
	g.state = s
	clear(g.votes)
	clear(g.absent)
	g.countOwn()
	return nil
}

func (g *genesis) countOwn() {
	if g.own() != nil {
		g.votes[g.self.ID] = true
	}
}

func (g *genesis) send(to ring.NodeID, m message) []outgoing {
	m.From = g.self.ID
	return []outgoing{{to, m}}
}

// announce tells every other node of a founding's list.
func (g *genesis) announce(f *ring.Founding, m message) []outgoing {
	var out []outgoing
	for _, n := range f.Nodes {
		if n.ID != g.self.ID {
			out = append(out, g.send(n.ID, m)...)
		}
	}
	return out
}

// receive takes one message from another node.
func (g *genesis) receive(now time.Time, m message) ([]outgoing, error) {
	g.now = now
	if m.From == g.self.ID {
		return nil, nil
	}
	switch m.Kind {
	case propose:
		return g.onPropose(m)
	case voted:
		return g.onVoted(m)
	case released:
		// RULE: only the proposer's own word releases a vote.
		if v := g.state.Vote; v != nil && v.Founding.ClusterID == m.ClusterID && v.Proposer == m.From {
			return nil, g.save(FoundingState{})
		}
	case rival:
		if g.own() != nil && !g.claiming() && m.Proposer < g.self.ID {
			return g.abandon(FoundingState{}, "a smaller node proposes too")
		}
	case founded:
		return g.onFounded(m)
	case ask:
		if f := g.state.Founded; f != nil {
			return g.send(m.From, message{Kind: founded, Founding: f}), nil
		}
	}
	return nil, nil
}

func (g *genesis) onPropose(m message) ([]outgoing, error) {
	f := m.Founding
	if g.state.Founded != nil {
		return g.send(m.From, message{Kind: founded, Founding: g.state.Founded}), nil
	}
	if m.Proposer != m.From || f.Nodes[0].ID != m.From || !isFounder(f, g.self.ID) || f.Name != g.name {
		return nil, nil
	}
	if settingsOf(f) != g.settings || len(f.Nodes) != g.expect {
		g.say("propose", slog.LevelError, "node proposes other settings; make them equal on all nodes", "peer", m.From,
			"own_settings", g.settings.String(), "own_expect", g.expect, "peer_settings", settingsOf(f).String(), "peer_expect", len(f.Nodes))
		return nil, nil
	}
	if f.Claimed != g.registered {
		g.say("propose", slog.LevelError, "node proposes a founding with a bucket, this one has none, or the other way round; make KAI_BACKUP_URL equal on all nodes", "peer", m.From)
		return nil, nil
	}
	if held := g.state.Vote; g.registered && held == nil && (g.ground == nil || g.ground.Founded != nil || f.Generation != g.ground.Generation+1) {
		return nil, nil // it is told again
	}
	vote := message{Kind: voted, Proposer: m.Proposer, ClusterID: f.ClusterID}
	held := g.state.Vote
	switch {
	case held == nil:
		if err := g.save(FoundingState{Vote: &Vote{Proposer: m.Proposer, Founding: *f}}); err != nil {
			return nil, err
		}
		return g.send(m.From, vote), nil
	case held.Founding.ClusterID == f.ClusterID && held.Proposer == m.Proposer:
		return g.send(m.From, vote), nil
	case held.Proposer == g.self.ID && m.Proposer < g.self.ID && !g.claiming():
		out, err := g.abandon(FoundingState{Vote: &Vote{Proposer: m.Proposer, Founding: *f}}, "a smaller node proposes too")
		if err != nil {
			return nil, err
		}
		return append(out, g.send(m.From, vote)...), nil
	}
	// RULE: one vote at a time. Let the two proposers know of each other; the greater yields.
	out := g.send(m.From, message{Kind: rival, Proposer: held.Proposer})
	if held.Proposer != g.self.ID {
		out = append(out, g.send(held.Proposer, message{Kind: rival, Proposer: m.Proposer})...)
		out = append(out, g.query()...)
	}
	return out, nil
}

// query tells the proposer of the held vote that it has it, which also asks how things stand.
func (g *genesis) query() []outgoing {
	v := g.state.Vote
	return g.send(v.Proposer, message{Kind: voted, Proposer: v.Proposer, ClusterID: v.Founding.ClusterID})
}

func (g *genesis) onVoted(m message) ([]outgoing, error) {
	if m.Proposer != g.self.ID {
		return nil, nil
	}
	if f := g.state.Founded; f != nil && f.ClusterID == m.ClusterID {
		return g.send(m.From, message{Kind: founded, Founding: f}), nil
	}
	f := g.own()
	if f == nil || f.ClusterID != m.ClusterID {
		// Not held on this node's disk, so it will never be founded: only this node could.
		return g.send(m.From, message{Kind: released, ClusterID: m.ClusterID}), nil
	}
	if isFounder(f, m.From) {
		g.votes[m.From] = true
	}
	return g.decide()
}

// decide founds the own proposal once all listed nodes are bound to it. RULE: unanimity, and
// only the proposer decides; with a registry, that does, among those proposals of which all are bound.
func (g *genesis) decide() ([]outgoing, error) {
	f := g.own()
	switch {
	case g.claiming():
		g.claim = f
		return nil, nil
	case slices.ContainsFunc(f.Nodes, func(n ring.Node) bool { return !g.votes[n.ID] }):
		return nil, nil
	case g.registered != f.Claimed:
		return nil, nil // configured anew; the next tick abandons it
	case g.registered:
		if err := g.save(FoundingState{Vote: &Vote{Proposer: g.self.ID, Founding: *f, Claiming: true}}); err != nil {
			return nil, err
		}
		g.claim = g.own()
		return nil, nil
	}
	return g.begin(f)
}

// begin makes the own proposal, which counts, the founding.
func (g *genesis) begin(f *ring.Founding) ([]outgoing, error) {
	if err := g.save(FoundingState{Founded: f}); err != nil {
		return nil, err
	}
	g.log.Info("cluster founded", "cluster_id", f.ClusterID, "nodes", len(f.Nodes), "settings", g.settings.String())
	return g.announce(f, message{Kind: founded, Founding: f}), nil
}

// onClaimed takes the registry's answer to a claim.
func (g *genesis) onClaimed(now time.Time, chosen *ring.Founding) ([]outgoing, error) {
	g.now = now
	if !g.claiming() || chosen.Generation != g.own().Generation {
		return nil, nil
	}
	g.claim = nil
	return g.onGround(now, Ground{Generation: chosen.Generation, Founded: chosen})
}

// onGround takes what the registry tells.
func (g *genesis) onGround(now time.Time, ground Ground) ([]outgoing, error) {
	g.now, g.ground = now, &ground
	v, f := g.state.Vote, ground.Founded
	switch {
	case v == nil || !v.Founding.Claimed:
	case f != nil && f.ClusterID == v.Founding.ClusterID:
		if !equalFounding(&v.Founding, f) {
			return nil, errors.New("membership: two foundings bear the cluster id " + f.ClusterID)
		}
		if settingsOf(f) != g.settings {
			return nil, fmt.Errorf("membership: %w", disagreement(f, g.settings))
		}
		if g.own() != nil {
			return g.begin(f)
		}
		err := g.save(FoundingState{Founded: f})
		g.logJoined(err)
		return nil, err
	case ground.Generation < v.Founding.Generation:
	case g.own() != nil:
		return g.abandon(FoundingState{}, "the bucket has another founding")
	default:
		// RULE: its proposer cannot found it any more.
		return nil, g.save(FoundingState{})
	}
	return nil, nil
}

// abandon gives the own proposal up for the next state, durably, then frees those who voted.
func (g *genesis) abandon(next FoundingState, why string) ([]outgoing, error) {
	f := *g.own()
	if err := g.save(next); err != nil {
		return nil, err
	}
	g.quietUntil = g.now.Add(yieldFor + rand.N(yieldFor)) //nolint:gosec // spreads load, guards nothing
	g.log.Info("founding proposal abandoned", "cluster_id", f.ClusterID, "reason", why)
	return g.announce(&f, message{Kind: released, ClusterID: f.ClusterID}), nil
}

func (g *genesis) onFounded(m message) ([]outgoing, error) {
	f, held := m.Founding, g.state.Vote
	if own := g.state.Founded; own != nil {
		if own.ClusterID != f.ClusterID {
			g.say("foreign", slog.LevelError, "another cluster of the same name is within reach; they never merge",
				"cluster_id", own.ClusterID, "peer_cluster_id", f.ClusterID, "peer", m.From)
		}
		return nil, nil
	}
	if f.Name != g.name {
		return nil, nil
	}
	if settingsOf(f) != g.settings {
		return nil, fmt.Errorf("membership: %w", disagreement(f, g.settings))
	}
	switch {
	case held != nil && held.Founding.ClusterID == f.ClusterID:
		if !equalFounding(&held.Founding, f) {
			return nil, errors.New("membership: two foundings bear the cluster id " + f.ClusterID)
		}
	case isFounder(f, g.self.ID):
		// It cannot have been founded without this node's vote, and the vote is not on the disk.
		return nil, fmt.Errorf("membership: cluster %s was founded with the vote of this node (%s), which its disk no longer holds: the data directory was rolled back; give the node an empty data directory", f.ClusterID, g.self.ID)
	case held != nil && held.Proposer != g.self.ID:
		// RULE: still bound. The proposer will adopt the founding, and then release this node.
		return append(g.send(held.Proposer, message{Kind: founded, Founding: f}), g.query()...), nil
	case held != nil && g.claiming():
		return nil, nil // the registry's answer comes first
	case held != nil:
		out, err := g.abandon(FoundingState{Founded: f}, "the cluster is founded already")
		g.logJoined(err)
		return out, err
	}
	err := g.save(FoundingState{Founded: f})
	g.logJoined(err)
	return nil, err
}

func (g *genesis) logJoined(err error) {
	if f := g.state.Founded; err == nil && f != nil {
		g.log.Info("cluster joined", "cluster_id", f.ClusterID, "founder", isFounder(f, g.self.ID))
	}
}
