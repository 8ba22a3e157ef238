package node

import (
	"slices"
	"testing"
	"time"

	"kai/node/ring"
)

// A young planner counts nobody as dead: what a node holds that it has not seen stays its own. But nothing moves to such a node, be it one that holds something,
// or a founder that is long gone.
func TestNothingMovesToTheDead(t *testing.T) {
	now := time.Now()
	n := &node{cfg: Config{ReplaceAfter: time.Minute}}
	n.identity.Node = "e"
	d := &dataPath{founding: ring.Founding{Partitions: 4, VNodes: 16, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Nodes: []ring.Node{{ID: "a"}, {ID: "b"}, {ID: "gone"}}}}
	s := newSightings(n, d)
	s.born = now
	view := &ring.View{Nodes: []ring.NodeInfo{
		{Node: ring.Node{ID: "a"}, Alive: true}, {Node: ring.Node{ID: "b"}, Alive: true, Slot: 1}, {Node: ring.Node{ID: "dead"}, Slot: 4},
		{Node: ring.Node{ID: "e"}, Alive: true, Slot: 5}, {Node: ring.Node{ID: "gone"}, Slot: 2},
	}}
	current := make([]ring.Configuration, 4)
	for p := range current {
		current[p] = ring.Configuration{Epoch: 7, Members: []ring.NodeID{"a", "b", "dead"}}
	}
	current[3].Members = []ring.NodeID{"a", "b", "e"}
	nodes := s.holders(now, view, current)
	var ids []ring.NodeID
	for _, node := range nodes {
		ids = append(ids, node.ID)
	}
	if !slices.Equal(ids, []ring.NodeID{"a", "b", "dead", "e"}) {
		t.Errorf("holders %v", ids)
	}
	for p, list := range towardsLiving(s.lists(current, nodes), current, view) {
		for _, id := range list {
			if (id == "dead" || id == "gone") && !slices.Contains(current[p].Members, id) {
				t.Errorf("partition %d moves to %v", p, list)
			}
		}
	}
	// Whatever is planned.
	lists := towardsLiving([][]ring.NodeID{{"gone", "b", "dead"}, {"a", "e", "dead"}, {"a", "b", "dead"}, {"a", "dead", "e"}}, current, view)
	for p, want := range [][]ring.NodeID{current[0].Members, {"a", "e", "dead"}, current[2].Members, current[3].Members} {
		if !slices.Equal(lists[p], want) {
			t.Errorf("partition %d: %v, want %v", p, lists[p], want)
		}
	}
}
