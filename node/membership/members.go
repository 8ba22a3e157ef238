package membership

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"kai/node/ring"
)

// members is what gossip has told so far. memberlist's callbacks write it while they hold
// memberlist's lock, so its methods must neither block nor call memberlist.
type members struct {
	mu    sync.Mutex
	known map[ring.NodeID]*member
	// starts is the latest start of every node that was heard of; unlike known it forgets nobody.
	starts map[ring.NodeID]start
	// dirty has room for one: "something changed".
	dirty chan struct{}
}

// start is one start of a data directory.
type start struct{ boot, process uint64 }

// before reports that s, of a node that was seen as seen, must not take part: it is of an older disk, or
// it bears the boot count of another process.
func (s start) before(seen start) bool {
	return s.boot < seen.boot || s.boot == seen.boot && s.process != seen.process && s.process != 0 && seen.process != 0
}

type member struct {
	info     ring.NodeInfo
	settings settings
	expect   int
	node     memberlist.Node // name, address and port only
	// foreign: it was let in, and later turned out to belong to another cluster.
	foreign bool
	since   time.Time // of the last change of info.Alive
	// moved is an address at which a later process of the node waits to be let in.
	moved string
}

// forgetAfter is how long a dead node that is no founder stays known.
const forgetAfter = time.Minute

func newMembers() *members {
	return &members{known: map[ring.NodeID]*member{}, starts: map[ring.NodeID]start{}, dirty: make(chan struct{}, 1)}
}

// seen records that gossip holds node for alive.
func (s *members) seen(node *memberlist.Node, m meta, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := ring.NodeID(node.Name)
	since := now
	if old := s.known[id]; old != nil && old.info.Alive {
		since = old.since
	}
	s.known[id] = &member{
		info: ring.NodeInfo{
			Node: ring.Node{ID: id, Zone: m.Zone}, PeerAddr: m.PeerAddr, GossipAddr: node.Address(), AdminAddr: m.AdminAddr,
			Version: m.Version, ClusterID: m.ClusterID, Boot: m.Boot, Process: m.Process, Alive: true, Slot: m.Slot, Draining: m.Draining, Weight: m.Weight,
		},
		settings: m.Settings, expect: m.Expect, since: since,
		node: memberlist.Node{Name: node.Name, Addr: slices.Clone(node.Addr), Port: node.Port},
	}
	signal(s.dirty)
}

// update runs f on the member with that id, if it is known.
func (s *members) update(id ring.NodeID, f func(*member)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.known[id]; m != nil {
		f(m)
		signal(s.dirty)
	}
}

// admit remembers a start of id, unless that must not take part beside the one seen before.
func (s *members) admit(id ring.NodeID, told start) (seen start, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, known := s.starts[id]
	if known && told.before(seen) {
		return seen, false
	}
	if !known || told.boot > seen.boot || told.process != 0 {
		s.starts[id] = told
	}
	return told, true
}

// address returns where to send to id.
func (s *members) address(id ring.NodeID) (memberlist.Node, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.known[id]; m != nil {
		return m.node, true
	}
	return memberlist.Node{}, false
}

// ours reports that a member may be counted to the cluster with that id ("" before founding).
func (m *member) ours(clusterID string) bool {
	return !m.foreign && (clusterID == "" || m.info.ClusterID == "" || m.info.ClusterID == clusterID)
}

// peers returns the live members but self, sorted by id.
func (s *members) peers(self ring.NodeID, clusterID string) []peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var live []peer
	for id, m := range s.known {
		if id != self && m.info.Alive && m.ours(clusterID) {
			live = append(live, peer{m.info.Node, m.info.ClusterID, m.settings, m.expect})
		}
	}
	slices.SortFunc(live, func(a, b peer) int { return cmp.Compare(a.Node.ID, b.Node.ID) })
	return live
}

// wanted returns which of the addresses are not those of live members, and the addresses at which
// nodes wait whose former process gossip no longer holds for alive.
func (s *members) wanted(addrs []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[string]bool{}
	for _, a := range addrs {
		want[a] = true
	}
	for _, m := range s.known {
		if m.info.Alive {
			delete(want, m.info.GossipAddr)
		} else if m.moved != "" {
			want[m.moved] = true
		}
	}
	return slices.Sorted(maps.Keys(want))
}

// list returns the nodes of a view, sorted by id: the members, and the founders even if they were
// never heard of. It forgets others that have been dead for long.
func (s *members) list(f *ring.Founding, now time.Time) []ring.NodeInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var nodes []ring.NodeInfo
	clusterID := ""
	if f != nil {
		clusterID = f.ClusterID
		for i, n := range f.Nodes {
			if s.known[n.ID] == nil {
				nodes = append(nodes, ring.NodeInfo{Node: n, ClusterID: clusterID, Slot: i})
			}
		}
	}
	for id, m := range s.known {
		switch {
		case !m.info.Alive && now.Sub(m.since) > forgetAfter && (f == nil || !isFounder(f, id)):
			delete(s.known, id)
		case m.ours(clusterID):
			nodes = append(nodes, m.info)
		}
	}
	slices.SortFunc(nodes, func(a, b ring.NodeInfo) int { return cmp.Compare(a.ID, b.ID) })
	return nodes
}
