package membership

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"kai/node/ring"
)

// tick says again what may have been lost, proposes when it is this node's turn, and complains
// when a person must act. live are the other live nodes; searched says that every known seed has
// been asked, so that no founded cluster within reach was overlooked.
func (g *genesis) tick(now time.Time, live []peer, searched bool) ([]outgoing, error) {
	g.now = now
	if g.state.Founded != nil {
		return nil, nil
	}
	out, exists := g.askFounded(live)
	var more []outgoing
	var err error
	switch {
	case g.own() != nil:
		more, err = g.pursue(live)
	case g.state.Vote != nil:
		more = g.waitFor(live)
	case !exists:
		more, err = g.maybePropose(live, searched)
	}
	return append(out, more...), err
}

// askFounded asks some of the founded nodes in sight for their founding, if they all have the same.
func (g *genesis) askFounded(live []peer) (out []outgoing, exists bool) {
	var ids []string
	for _, p := range live {
		if p.ClusterID == "" {
			continue
		}
		if !slices.Contains(ids, p.ClusterID) {
			ids = append(ids, p.ClusterID)
		}
		if len(out) < askAtOnce {
			out = append(out, g.send(p.Node.ID, message{Kind: ask})...)
		}
	}
	if len(ids) > 1 {
		slices.Sort(ids)
		g.say("two clusters", slog.LevelError, "two clusters of one name are within reach; name them differently, or correct the discovery", "cluster_ids", ids)
		return nil, true
	}
	return out, len(ids) == 1
}

// pursue asks for missing votes, and gives the proposal up when a node that has none stays away.
func (g *genesis) pursue(live []peer) ([]outgoing, error) {
	f := g.own()
	if g.claiming() {
		return g.decide()
	}
	if settingsOf(f) != g.settings || len(f.Nodes) != g.expect || f.Claimed != g.registered {
		return g.abandon(FoundingState{}, "this node was configured anew")
	}
	var out []outgoing
	var missing []ring.NodeID
	for _, n := range f.Nodes {
		if g.votes[n.ID] {
			continue
		}
		missing = append(missing, n.ID)
		if slices.ContainsFunc(live, func(p peer) bool { return p.Node.ID == n.ID && g.matches(p) }) {
			delete(g.absent, n.ID)
			out = append(out, g.send(n.ID, message{Kind: propose, Proposer: g.self.ID, Founding: f})...)
			continue
		}
		since, known := g.absent[n.ID]
		if !known {
			g.absent[n.ID] = g.now
		} else if g.now.Sub(since) >= abandonAfter {
			return g.abandon(FoundingState{}, "a listed node stays away")
		}
	}
	if len(missing) == 0 { // restarted, or alone
		return g.decide()
	}
	g.say("votes", slog.LevelInfo, "founding waits for votes", "cluster_id", f.ClusterID, "nodes", missing)
	return out, nil
}

// waitFor asks the proposer how things stand. Its silence binds this node: the proposer may have
// founded the cluster, and the cluster may hold data.
func (g *genesis) waitFor(live []peer) []outgoing {
	v := g.state.Vote
	if !slices.ContainsFunc(live, func(p peer) bool { return p.Node.ID == v.Proposer }) {
		var listed []ring.NodeID
		for _, n := range v.Founding.Nodes {
			listed = append(listed, n.ID)
		}
		g.say("proposer", slog.LevelError,
			"founding stuck: the proposer is out of reach and this node's vote binds it. Start the proposer again with its data directory. Only if that is lost for good: stop all nodes of this list that are not founded, empty their data directories (they hold no data yet), start them again",
			"proposer", v.Proposer, "cluster_id", v.Founding.ClusterID, "nodes", listed)
	}
	return g.query()
}

// maybePropose proposes a founding when enough equal nodes are in sight and this one's id is the
// smallest of all.
func (g *genesis) maybePropose(live []peer, searched bool) ([]outgoing, error) {
	var ground Ground
	switch {
	case !g.registered:
	case g.ground == nil:
		g.say("waiting", slog.LevelWarn, "waiting for the bucket, which decides who founds the cluster")
		return nil, nil
	case g.ground.Founded != nil:
		f := g.ground.Founded
		var listed []ring.NodeID
		for _, n := range f.Nodes {
			listed = append(listed, n.ID)
		}
		g.say("waiting", slog.LevelError,
			"the cluster is founded already, says the bucket, but none of its nodes is in sight: start them, or correct the discovery. Only if all of them are lost for good, let the next generation begin: kai backup seal --lost",
			"cluster_id", f.ClusterID, "generation", f.Generation, "founders", listed)
		return nil, nil
	default:
		ground = *g.ground
	}
	nodes := []ring.Node{g.self}
	for _, p := range live {
		if g.matches(p) {
			nodes = append(nodes, p.Node)
		} else {
			g.say("expect", slog.LevelError, "nodes of one cluster expect different foundings; make them equal on all nodes", "peer", p.Node.ID,
				"own_settings", g.settings.String(), "own_expect", g.expect, "peer_settings", p.Settings.String(), "peer_expect", p.Expect)
		}
	}
	slices.SortFunc(nodes, func(a, b ring.Node) int { return cmp.Compare(a.ID, b.ID) })
	if len(nodes) < g.expect || !searched {
		g.say("waiting", slog.LevelInfo, "waiting for nodes to found a cluster with", "nodes", len(nodes), "expect", g.expect, "seeds_searched", searched)
		return nil, nil
	}
	if nodes[0].ID != g.self.ID || g.now.Before(g.quietUntil) {
		g.say("waiting", slog.LevelInfo, "waiting for the smallest node to found the cluster", "node", nodes[0].ID)
		return nil, nil
	}
	f := ring.Founding{
		ClusterID: g.newID(), Generation: ground.Generation + 1, Claimed: g.registered, Snapshot: ground.Snapshot, Name: g.name, Quorum: g.settings.Quorum,
		Partitions: g.settings.Partitions, VNodes: g.settings.VNodes, Nodes: nodes[:g.expect],
	}
	if err := g.save(FoundingState{Vote: &Vote{Proposer: g.self.ID, Founding: f}}); err != nil {
		return nil, err
	}
	g.log.Info("founding proposed", "cluster_id", f.ClusterID, "nodes", len(f.Nodes))
	return g.pursue(live)
}

// matches reports that p would found a cluster with the same settings.
func (g *genesis) matches(p peer) bool { return p.Settings == g.settings && p.Expect == g.expect }

// say logs, but the same thing not more than once in sayEvery.
func (g *genesis) say(what string, level slog.Level, text string, args ...any) {
	if last, ok := g.spoken[what]; ok && g.now.Sub(last) < sayEvery {
		return
	}
	g.spoken[what] = g.now
	g.log.Log(context.Background(), level, text, args...)
}
