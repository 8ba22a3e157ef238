package node

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"kai/node/placement"
	"kai/node/ring"
)

// sightings remembers which nodes there are, and when each was last seen alive: who should hold partitions. One
// that this process has not seen yet counts as seen at its start: nobody is to be replaced because an observer
// is young. Safe for concurrent use.
type sightings struct {
	n    *node
	d    *dataPath
	born time.Time

	mu    sync.Mutex
	last  map[ring.NodeID]time.Time
	known map[ring.NodeID]ring.Weighted // also those that gossip has forgotten
	able  map[ring.NodeID]bool          // who may hold partitions by the last plan; nil: nobody knows
	// The preference lists over these nodes: see preferred.
	ring   [][]ring.NodeID
	ringOf []ring.Weighted

	// What the last plan was made of, if nothing was to be done: then the same is not planned again at once. The
	// mover's own.
	idle   bool
	serial uint64
	epochs uint64
	asked  time.Time
}

func newSightings(n *node, d *dataPath) *sightings {
	s := &sightings{n: n, d: d, last: map[ring.NodeID]time.Time{}, known: map[ring.NodeID]ring.Weighted{}, born: time.Now()}
	for _, founder := range d.founding.Nodes {
		s.known[founder.ID] = ring.Weighted{Node: founder}
	}
	return s
}

// look takes note of the nodes of the newest view, and returns that view.
func (s *sightings) look(now time.Time) *ring.View {
	view := s.n.membership.View()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, info := range view.Nodes {
		if info.Alive {
			s.last[info.ID] = now
		}
		if info.Alive || info.Weight != 0 {
			s.known[info.ID] = ring.Weighted{Node: info.Node, Weight: info.Weight}
		}
	}
	return view
}

// lastSeen is when the node was alive, or this process began to look.
func (s *sightings) lastSeen(id ring.NodeID) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.last[id]; ok {
		return last
	}
	return s.born
}

// node is what is known of a node, its zone and weight that is.
func (s *sightings) node(id ring.NodeID) ring.Weighted {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w, ok := s.known[id]; ok {
		return w
	}
	return ring.Weighted{Node: ring.Node{ID: id}}
}

// alive lists the nodes that gossip holds for alive.
func (s *sightings) alive() []ring.NodeID {
	var ids []ring.NodeID
	for _, info := range s.n.membership.View().Nodes {
		if info.Alive {
			ids = append(ids, info.ID)
		}
	}
	return ids
}

// gone implements placement's Gone.
func (s *sightings) gone(id ring.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.able != nil && !s.able[id]
}

func (s *sightings) setAble(nodes []ring.Weighted) {
	var able map[ring.NodeID]bool
	if nodes != nil {
		able = make(map[ring.NodeID]bool, len(nodes))
		for _, node := range nodes {
			able[node.ID] = true
		}
	}
	s.mu.Lock()
	s.able = able
	s.mu.Unlock()
}

// replan is how often an idle cluster is planned anew: a node's death counts by time alone.
const replan = 2 * time.Second

// plan says where partitions should be, if this node is the first of those alive.
func (s *sightings) plan(current []ring.Configuration) [][]ring.NodeID {
	now, epochs := time.Now(), uint64(0)
	for _, c := range current {
		epochs += uint64(c.Epoch)
	}
	view := s.look(now)
	if s.idle && view.Serial == s.serial && epochs == s.epochs && now.Sub(s.asked) < replan {
		return nil
	}
	s.serial, s.epochs, s.asked = view.Serial, epochs, now
	nodes := s.holders(now, view, current)
	if !first(view, s.n.identity.Node) {
		nodes = nil
	}
	s.setAble(nodes)
	lists := towardsLiving(s.lists(current, nodes), current, view)
	s.idle = true
	for p, list := range lists {
		s.idle = s.idle && slices.Equal(list, current[p].Members)
	}
	return lists
}

// towardsLiving leaves partitions as they are that would move to a node which is not alive: it counts as one that may come back, for what it
// holds, and a move to it could neither end nor, with another member dead, be undone.
func towardsLiving(lists [][]ring.NodeID, current []ring.Configuration, view *ring.View) [][]ring.NodeID {
	alive := map[ring.NodeID]bool{}
	for _, info := range view.Nodes {
		alive[info.ID] = info.Alive
	}
	for p, list := range lists {
		for _, id := range list {
			if !alive[id] && !slices.Contains(current[p].Members, id) {
				lists[p] = current[p].Members
				break
			}
		}
	}
	return lists
}

// first reports whether it is self's turn to plan.
func first(view *ring.View, self ring.NodeID) bool {
	for _, info := range view.Nodes {
		if info.Alive && info.Slot >= 0 && info.ID < self {
			return false
		}
	}
	return true
}

// holders are the nodes that should hold the partitions; nil if they are too few: who is dead has no substitute
// then, stays a member, and may come back.
func (s *sightings) holders(now time.Time, view *ring.View, current []ring.Configuration) []ring.Weighted {
	may, replicas := map[ring.NodeID]bool{}, 0
	for _, c := range current {
		for _, id := range c.Members {
			may[id] = true
		}
		replicas = max(replicas, len(c.Members))
	}
	for _, info := range view.Nodes {
		if info.Slot < 0 || !info.Alive && !may[info.ID] {
			continue // a founder that is gone for long, perhaps, and holds nothing
		}
		// One that left and comes back says so anew; until then it is still leaving.
		if may[info.ID] = true; info.Draining {
			delete(may, info.ID)
		}
	}
	var nodes []ring.Weighted
	for id := range may {
		if now.Sub(s.lastSeen(id)) < s.n.cfg.ReplaceAfter {
			nodes = append(nodes, s.node(id))
		}
	}
	if len(nodes) < min(replicas, s.d.founding.Quorum.N) {
		return nil
	}
	slices.SortFunc(nodes, func(a, b ring.Weighted) int { return cmp.Compare(a.ID, b.ID) })
	return nodes
}

// lists says which of the nodes should hold each partition; nil without nodes.
func (s *sightings) lists(current []ring.Configuration, nodes []ring.Weighted) [][]ring.NodeID {
	if len(nodes) == 0 {
		return nil
	}
	return placement.Plan(current, s.preferred(nodes), nodes, s.d.founding.Quorum.N)
}

// preferred is the ring over the nodes, not to be changed. It is kept while they stay the same: moves go on for
// long, and are planned all the time.
func (s *sightings) preferred(nodes []ring.Weighted) [][]ring.NodeID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(nodes, s.ringOf) {
		f := &s.d.founding
		s.ringOf, s.ring = slices.Clone(nodes), ring.WeightedLists(nodes, f.Partitions, f.Quorum.N, f.VNodes)
	}
	return s.ring
}
