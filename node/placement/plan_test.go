package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"kai/node/ring"
)

func planNodes(n int, zones ...string) []ring.Node {
	nodes := make([]ring.Node, n)
	for i := range nodes {
		nodes[i].ID = ring.NodeID(fmt.Sprintf("%016x", 0x9e3779b97f4a7c15*uint64(i+1)))
		if len(zones) > 0 {
			nodes[i].Zone = zones[i%len(zones)]
		}
	}
	return nodes
}

// ordinary gives all nodes the same weight.
func ordinary(nodes []ring.Node) []ring.Weighted {
	weighted := make([]ring.Weighted, len(nodes))
	for i, node := range nodes {
		weighted[i].Node = node
	}
	return weighted
}

// cluster is the configurations as plans change them.
type cluster struct {
	t     testing.TB
	n     int
	confs []ring.Configuration
}

func (c *cluster) plan(nodes []ring.Node) [][]ring.NodeID {
	return Plan(c.confs, ring.PreferenceLists(nodes, len(c.confs), len(nodes), 64), ordinary(nodes), c.n)
}

// goTo carries a plan out, and tells how many replicas moved.
func (c *cluster) goTo(nodes []ring.Node) (moved int) {
	c.t.Helper()
	lists := c.plan(nodes)
	for p, list := range lists {
		for _, id := range list {
			if !slices.Contains(c.confs[p].Members, id) {
				moved++
			}
		}
		c.confs[p] = ring.Configuration{Epoch: c.confs[p].Epoch + 2, Members: list}
	}
	for p, list := range c.plan(nodes) {
		if !slices.Equal(list, lists[p]) {
			c.t.Fatalf("a plan that was carried out wants more: partition %d from %v to %v", p, lists[p], list)
		}
	}
	return moved
}

// check holds the plan against its promises.
func (c *cluster) check(nodes []ring.Node) {
	c.t.Helper()
	n, load, zone, zones := min(c.n, len(nodes)), map[ring.NodeID]int{}, map[ring.NodeID]string{}, map[string]bool{}
	for _, node := range nodes {
		zone[node.ID], zones[node.Zone] = node.Zone, true
	}
	for p, conf := range c.confs {
		seen := map[string]bool{}
		for i, id := range conf.Members {
			if _, ok := zone[id]; !ok || slices.Contains(conf.Members[:i], id) {
				c.t.Fatalf("partition %d: %v", p, conf.Members)
			}
			load[id]++
			seen[zone[id]] = true
		}
		if len(conf.Members) != n || len(seen) < min(n, len(zones)) {
			c.t.Fatalf("partition %d: %v in %d zones", p, conf.Members, len(seen))
		}
	}
	if len(nodes)%len(zones) != 0 {
		return // zones of unequal size come before the bound
	}
	all := len(c.confs) * n
	limit := max((all+len(nodes)-1)/len(nodes), int(float64(all)*(1+Slack)/float64(len(nodes))))
	for id, l := range load {
		if l > limit {
			c.t.Errorf("%d nodes: %s holds %d partitions, limit %d, mean %.1f", len(nodes), id, l, limit, float64(all)/float64(len(nodes)))
		}
	}
}

func newCluster(t testing.TB, partitions, n int, nodes []ring.Node) *cluster {
	c := &cluster{t: t, n: n, confs: make([]ring.Configuration, partitions)}
	for p, list := range ring.PreferenceLists(nodes, partitions, n, 64) {
		c.confs[p] = ring.Configuration{Epoch: 1, Members: list}
	}
	return c
}

// Growing and shrinking moves what must move, and little more.
func TestPlanMovesLittle(t *testing.T) {
	const partitions = 1024
	for _, zones := range [][]string{nil, {"a", "b", "c"}} {
		nodes := planNodes(30, zones...)
		c := newCluster(t, partitions, 3, nodes[:3])
		for _, count := range []int{3, 4, 5, 6, 9, 12, 13, 30, 12, 6, 4, 3} {
			before := len(slices.Compact(slices.Sorted(func(yield func(ring.NodeID) bool) {
				for _, conf := range c.confs {
					for _, id := range conf.Members {
						if !yield(id) {
							return
						}
					}
				}
			})))
			moved := c.goTo(nodes[:count])
			c.check(nodes[:count])
			ideal := float64(partitions) * 3 * float64(max(count-before, 0)) / float64(count)
			if count < before {
				ideal = float64(partitions) * 3 * float64(before-count) / float64(before)
			}
			t.Logf("zones %v: %d to %d nodes: %d replicas move, ideal %.0f", zones, before, count, moved, ideal)
			even := len(zones) == 0 || before%len(zones) == 0 && count%len(zones) == 0
			if even && float64(moved) > ideal*1.1 {
				t.Errorf("%d to %d nodes: %d replicas move, ideal %.0f", before, count, moved, ideal)
			}
		}
	}
}

// TestPlanSharesWithinZones: a node that joins a zone of many gets its part of what the zone must hold, though nobody there holds more than the mean
// of all: a zone with one node must hold so much that the mean is no measure.
func TestPlanSharesWithinZones(t *testing.T) {
	in := func(zone string, names ...string) (nodes []ring.Node) {
		for _, name := range names {
			nodes = append(nodes, ring.Node{ID: ring.NodeID(name), Zone: zone})
		}
		return nodes
	}
	c := newCluster(t, 64, 3, slices.Concat(in("a", "a1", "a2"), in("b", "b1", "b2")))
	c.goTo(slices.Concat(in("a", "a1", "a2"), in("b", "b1", "b2"), in("c", "c1")))
	nodes := slices.Concat(in("a", "a1", "a2", "a3"), in("b", "b1", "b2"), in("c", "c1"))
	c.goTo(nodes)
	load := map[ring.NodeID]int{}
	for _, conf := range c.confs {
		for _, id := range conf.Members {
			load[id]++
		}
	}
	for _, id := range []ring.NodeID{"a1", "a2", "a3"} {
		if load[id] < 21 || load[id] > 22 {
			t.Errorf("%s holds %d of the 64 that its zone must hold: %v", id, load[id], load)
		}
	}
}

// Whatever comes and goes, the promises hold.
func TestPlanAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		zones := []string{"a", "b", "c", "d"}[:1+r.IntN(4)]
		all := planNodes(16, zones...)
		pick := func() []ring.Node {
			// As many of each zone, or the bound cannot hold.
			k := 1 + r.IntN(16/len(zones))
			var nodes []ring.Node
			for z := range zones {
				for _, i := range r.Perm(16 / len(zones))[:k] {
					nodes = append(nodes, all[i*len(zones)+z])
				}
			}
			return nodes
		}
		n := 1 + r.IntN(4)
		if n > len(zones) && n%len(zones) != 0 { // some zones must hold more than others then
			n = len(zones)
		}
		c := newCluster(t, 256, n, pick())
		for range 4 {
			nodes := pick()
			c.goTo(nodes)
			c.check(nodes)
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	for _, size := range []struct{ nodes, partitions int }{{10, 1024}, {100, 16384}} {
		b.Run(fmt.Sprintf("%d nodes, %d partitions", size.nodes, size.partitions), func(b *testing.B) {
			nodes := planNodes(size.nodes+1, "a", "b", "c")
			c := newCluster(b, size.partitions, 3, nodes[:size.nodes])
			preferred := ring.PreferenceLists(nodes, size.partitions, 3, 64)
			for b.Loop() {
				Plan(c.confs, preferred, ordinary(nodes), 3)
			}
		})
	}
}
