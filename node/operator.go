package node

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"kai/node/console"
	"kai/node/placement"
	"kai/node/ring"
)

var errNotFounded = errors.New("the cluster is not founded yet")

// Ring implements console.Operator.
func (s source) Ring() console.Ring {
	n, st := s.n, s.status()
	r := console.Ring{NodeID: st.NodeID, Cluster: st.Cluster, UnderReplicated: st.UnderReplicated, Lost: st.Lost, Recoveries: st.Recoveries, Nodes: []console.RingNode{}}
	d := n.data.Load()
	if d == nil {
		return r
	}
	o := n.outlook(d)
	r.Transfer = n.transfer(d, o)
	shares := placement.Shares(o.nodes, len(o.current), d.founding.Quorum.N)
	weights := 0.0
	for _, node := range o.nodes {
		r.Mean += shares[node.ID]
		weights += weight(node.Weight)
	}
	if weights > 0 {
		r.Mean /= weights
	}
	held, favoured := holdings(membersOf(o.current))
	for _, info := range n.everyNode(d, held) {
		node := console.RingNode{
			ID: string(info.ID), PeerAddr: info.PeerAddr, AdminAddr: info.AdminAddr, Zone: info.Zone, Slot: info.Slot, Weight: weight(info.Weight),
			State: state(info), Partitions: held[info.ID], Favoured: favoured[info.ID], In: o.in[info.ID], Out: o.out[info.ID],
		}
		if share := shares[info.ID]; share > 0 {
			node.Share = float64(node.Partitions) / share
		}
		if seen := d.seen.Load(); node.State == console.NodeDead && seen != nil {
			last := seen.lastSeen(info.ID)
			replaced := last.Add(n.cfg.ReplaceAfter)
			node.LastSeen, node.ReplacedAt = &last, &replaced
		}
		r.Nodes = append(r.Nodes, node)
	}
	return r
}

// everyNode lists the nodes of the view, and those that hold something though gossip has forgotten them.
func (n *node) everyNode(d *dataPath, held map[ring.NodeID]int) []ring.NodeInfo {
	nodes := slices.Clone(n.membership.View().Nodes)
	for id := range held {
		if _, ok := n.membership.View().Find(id); ok {
			continue
		}
		info := ring.NodeInfo{Node: ring.Node{ID: id}, Slot: -1}
		if seen := d.seen.Load(); seen != nil {
			known := seen.node(id)
			info.Node, info.Weight = known.Node, known.Weight
		}
		nodes = append(nodes, info)
	}
	slices.SortFunc(nodes, func(a, b ring.NodeInfo) int { return cmp.Compare(a.ID, b.ID) })
	return nodes
}

func state(info ring.NodeInfo) string {
	switch {
	case !info.Alive:
		return console.NodeDead
	case info.Slot < 0:
		return console.NodeJoining
	case info.Draining:
		return console.NodeDraining
	}
	return console.NodeAlive
}

func weight(w ring.Weight) float64 { return float64(w.Thousandths()) / float64(ring.WeightOne) }

// membersOf is the members of each partition.
func membersOf(configurations []ring.Configuration) [][]ring.NodeID {
	lists := make([][]ring.NodeID, len(configurations))
	for p, c := range configurations {
		lists[p] = c.Members
	}
	return lists
}

// holdings counts the partitions that each node holds, and those that favour it.
func holdings(lists [][]ring.NodeID) (held, favoured map[ring.NodeID]int) {
	held, favoured = map[ring.NodeID]int{}, map[ring.NodeID]int{}
	for _, list := range lists {
		for i, id := range list {
			held[id]++
			if i == 0 {
				favoured[id]++
			}
		}
	}
	return held, favoured
}

// Plan implements console.Operator: what the planner would do with other nodes, by the same code.
func (s source) Plan(q console.PlanQuery) (console.Plan, error) {
	n := s.n
	d := n.data.Load()
	if d == nil {
		return console.Plan{}, errNotFounded
	}
	seen := d.seen.Load()
	if seen == nil {
		return console.Plan{}, errors.New("this node has no slot yet, and cannot plan")
	}
	now, current := time.Now(), configurations(d)
	view := seen.look(now)
	held, _ := holdings(membersOf(current))
	every := n.everyNode(d, held)
	without, err := resolveNodes(every, q.Without)
	if err != nil {
		return console.Plan{}, err
	}
	added, err := newcomers(q, view)
	if err != nil {
		return console.Plan{}, err
	}
	nodes := slices.DeleteFunc(slices.Clone(seen.holders(now, view, current)), func(w ring.Weighted) bool { return slices.Contains(without, w.ID) })
	nodes = append(nodes, added...)
	p := console.Plan{NodeID: string(n.identity.Node), AtOnce: n.cfg.Moves, Seconds: -1, Nodes: []console.PlanNode{}}
	replicas := d.founding.Quorum.N
	if len(without) > 0 && len(nodes) < replicas || len(nodes) == 0 {
		p.Impossible = fmt.Sprintf("%d nodes would be left for %d replicas: who leaves, or is dead, keeps its place until there are others", len(nodes), replicas)
		nodes = nil
	}
	o := newOutlook(current, nodes, seen.lists(current, nodes))
	p.Nodes = planNodes(every, without, added, o)
	p.Partitions, p.Replicas = o.moving+o.planned, o.left
	sum, _ := n.reports(d)
	p.Bytes = int64(float64(o.left) * replicaBytes(sum, d.founding.Quorum))
	t := console.Transfer{LeftReplicas: o.left, LeftBytes: p.Bytes, BytesPerSecond: float64(sum.bytesRate), ReplicasPerSecond: float64(sum.pulledRate) / 1000}
	p.Seconds = secondsLeft(t)
	return p, nil
}

func planNodes(every []ring.NodeInfo, without []ring.NodeID, added []ring.Weighted, o *outlook) []console.PlanNode {
	lists := o.lists
	if lists == nil {
		lists = membersOf(o.current)
	}
	held, favoured := holdings(membersOf(o.current))
	then, favouredThen := holdings(lists)
	row := func(w ring.Weighted, addr, fate string) console.PlanNode {
		return console.PlanNode{ID: string(w.ID), Addr: addr, Zone: w.Zone, Weight: weight(w.Weight), Fate: fate,
			Before: held[w.ID], After: then[w.ID], FavouredBefore: favoured[w.ID], FavouredAfter: favouredThen[w.ID], In: o.in[w.ID], Out: o.out[w.ID]}
	}
	rows := []console.PlanNode{}
	for _, info := range every {
		fate := console.PlanStays
		if slices.Contains(without, info.ID) || info.Draining || !info.Alive && o.lists != nil && then[info.ID] == 0 {
			fate = console.PlanLeaves
		}
		rows = append(rows, row(ring.Weighted{Node: info.Node, Weight: info.Weight}, info.PeerAddr, fate))
	}
	for _, w := range added {
		rows = append(rows, row(w, "", console.PlanComes))
	}
	return rows
}

// resolveNodes finds the nodes that are named by id, beginning of an id, or address.
func resolveNodes(nodes []ring.NodeInfo, names []string) ([]ring.NodeID, error) {
	var ids []ring.NodeID
	for _, name := range names {
		var found []ring.NodeID
		for _, info := range nodes {
			if name != "" && (strings.HasPrefix(string(info.ID), name) || name == info.PeerAddr || name == info.AdminAddr || name == info.GossipAddr) {
				found = append(found, info.ID)
			}
		}
		switch len(found) {
		case 1:
			ids = append(ids, found[0])
		case 0:
			return nil, fmt.Errorf("no node is called %q: write the beginning of an id, or an address", name)
		default:
			return nil, fmt.Errorf("%d nodes are called %q: write more of the id", len(found), name)
		}
	}
	return ids, nil
}

// newcomers makes up the nodes that a plan is to add.
func newcomers(q console.PlanQuery, view *ring.View) ([]ring.Weighted, error) {
	w := ring.WeightOne
	if q.Weight != 0 {
		if w = ring.Weight(math.Round(q.Weight * float64(ring.WeightOne))); w < ring.MinWeight || w > ring.MaxWeight {
			return nil, fmt.Errorf("weight %v is not between %s and %s", q.Weight, ring.MinWeight, ring.MaxWeight)
		}
	}
	crowd := map[string]int{}
	for _, info := range view.Nodes {
		if info.Alive {
			crowd[info.Zone]++
		}
	}
	var added []ring.Weighted
	for i := range q.With {
		zone, fewest := "", math.MaxInt
		for z, count := range crowd {
			if count < fewest || count == fewest && z < zone {
				zone, fewest = z, count
			}
		}
		if len(q.Zones) > 0 {
			zone = q.Zones[i%len(q.Zones)]
		}
		crowd[zone]++
		added = append(added, ring.Weighted{Node: ring.Node{ID: ring.NodeID(fmt.Sprintf("new node %d", i+1)), Zone: zone}, Weight: w})
	}
	return added, nil
}

// Drain implements console.Operator.
func (s source) Drain() console.Drain {
	n := s.n
	d := console.Drain{NodeID: string(n.identity.Node), Asked: n.draining.Load()}
	if data := n.data.Load(); data != nil {
		if d.Partitions = n.holds(data); d.Partitions > 0 {
			d.Reason = n.cannotDrain(data)
		}
	}
	return d
}

// SetDrain implements console.Operator. A drain is not remembered beyond this process.
func (s source) SetDrain(on bool) error {
	n := s.n
	d := n.data.Load()
	switch {
	case n.stopping.Load():
		return errors.New("this node stops")
	case d == nil:
		return errNotFounded
	case on:
		if why := n.cannotDrain(d); why != "" {
			return errors.New("nobody can take what this node holds: " + why)
		}
	}
	if n.draining.Swap(on) != on {
		n.membership.SetDraining(on)
		n.log.Info("drain", "asked", on, "partitions", n.holds(d))
	}
	return nil
}
