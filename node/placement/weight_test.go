package placement

import (
	"math/rand/v2"
	"slices"
	"testing"

	"kai/node/ring"
)

// follow carries out the plan for weighted nodes, and tells how many replicas each node got and gave.
func (c *cluster) follow(nodes []ring.Weighted) (got, gave map[ring.NodeID]int) {
	c.t.Helper()
	got, gave = map[ring.NodeID]int{}, map[ring.NodeID]int{}
	plan := func() [][]ring.NodeID {
		return Plan(c.confs, ring.WeightedLists(nodes, len(c.confs), len(nodes), 64), nodes, c.n)
	}
	lists := plan()
	for p, list := range lists {
		for _, id := range list {
			if !slices.Contains(c.confs[p].Members, id) {
				got[id]++
			}
		}
		for _, id := range c.confs[p].Members {
			if !slices.Contains(list, id) {
				gave[id]++
			}
		}
		c.confs[p] = ring.Configuration{Epoch: c.confs[p].Epoch + 2, Members: list}
	}
	for p, list := range plan() {
		if !slices.Equal(list, lists[p]) {
			c.t.Fatalf("a plan that was carried out wants more: partition %d from %v to %v", p, lists[p], list)
		}
	}
	return got, gave
}

func (c *cluster) loads() map[ring.NodeID]int {
	load := map[ring.NodeID]int{}
	for _, conf := range c.confs {
		for _, id := range conf.Members {
			load[id]++
		}
	}
	return load
}

// fair is what each node should hold: a plain solution by bisection, unlike the planner's.
func fair(nodes []ring.Weighted, partitions, n int) map[ring.NodeID]float64 {
	low, high := 0.0, float64(partitions)*1e6
	share := map[ring.NodeID]float64{}
	for range 200 {
		mid, sum := (low+high)/2, 0.0
		for _, node := range nodes {
			share[node.ID] = min(float64(partitions), mid*float64(node.Weight.Thousandths()))
			sum += share[node.ID]
		}
		if sum < float64(partitions*min(n, len(nodes))) {
			low = mid
		} else {
			high = mid
		}
	}
	return share
}

// A node holds in proportion to its weight, at most 5 % more, however weights and nodes come and go; and
// little moves beyond what those that lack some must get.
func TestPlanByWeightAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	all := planNodes(12)
	moved, ideal := 0.0, 0.0
	for range 150 {
		const partitions = 256
		pick := func() []ring.Weighted {
			var nodes []ring.Weighted
			for _, i := range r.Perm(len(all))[:1+r.IntN(len(all))] {
				nodes = append(nodes, ring.Weighted{Node: all[i], Weight: ring.Weight(100 + r.IntN(9901))})
			}
			return nodes
		}
		c := newCluster(t, partitions, 1+r.IntN(4), all[:1+r.IntN(len(all))])
		for range 4 {
			nodes := pick()
			before := c.loads()
			got, _ := c.follow(nodes)
			share, after := fair(nodes, partitions, c.n), c.loads()
			for _, node := range nodes {
				most := max(int(share[node.ID]+0.999999), int(share[node.ID]*(1+Slack)))
				if after[node.ID] > most || float64(after[node.ID]) < share[node.ID]*(1-Slack)-float64(len(nodes)) {
					t.Fatalf("%s of weight %s holds %d of %d in %d nodes, its share is %.1f", node.ID, node.Weight, after[node.ID], partitions, len(nodes), share[node.ID])
				}
				moved += float64(got[node.ID])
				ideal += max(0, share[node.ID]-float64(before[node.ID]))
			}
		}
	}
	t.Logf("%.0f replicas moved, ideal %.0f", moved, ideal)
	if moved > 1.1*ideal {
		t.Errorf("%.0f replicas moved, ideal %.0f", moved, ideal)
	}
}

// One node's weight doubles: only it gets anything, and just what it lacks.
func TestPlanMovesLittleByWeight(t *testing.T) {
	const partitions = 1024
	nodes := make([]ring.Weighted, 8)
	for i, node := range planNodes(8) {
		nodes[i] = ring.Weighted{Node: node, Weight: ring.WeightOne}
	}
	c := newCluster(t, partitions, 3, planNodes(8))
	c.follow(nodes)
	before := c.loads()[nodes[2].ID]
	nodes[2].Weight = 2 * ring.WeightOne
	got, _ := c.follow(nodes)
	total := 0
	for _, n := range got {
		total += n
	}
	want := partitions*3*2/9 - before
	t.Logf("weight 1 to 2 among 8 nodes: %d replicas move, ideal %d", total, want)
	if got[nodes[2].ID] != total || total < want-want/20 || total > want+want/20 {
		t.Errorf("%d replicas move, %d of them to the node that is to hold %d more", total, got[nodes[2].ID], want)
	}
}

// With as many nodes as replicas weights change nothing; a share above all partitions is all of them.
func TestPlanWithWeightsThatCannotBe(t *testing.T) {
	nodes := make([]ring.Weighted, 4)
	for i, node := range planNodes(4) {
		nodes[i] = ring.Weighted{Node: node, Weight: ring.MinWeight}
	}
	nodes[0].Weight = ring.MaxWeight
	c := newCluster(t, 300, 2, planNodes(4))
	c.follow(nodes)
	load := c.loads()
	if load[nodes[0].ID] < 285 {
		t.Errorf("the node of 100 times the weight holds %d of 300", load[nodes[0].ID])
	}
	for _, node := range nodes[1:] {
		if load[node.ID] < 95 || load[node.ID] > 105 {
			t.Errorf("%s holds %d of 300, its share is 100", node.ID, load[node.ID])
		}
	}
	got, _ := c.follow(nodes[:2])
	if load := c.loads(); load[nodes[0].ID] != 300 || load[nodes[1].ID] != 300 || got[nodes[1].ID] == 0 {
		t.Errorf("two nodes for two replicas hold %v", load)
	}
}

// With as many zones as replicas each zone holds every partition: its nodes share them by weight, however
// unequal the zones are.
func TestPlanByWeightWithinZones(t *testing.T) {
	const partitions = 512
	r := rand.New(rand.NewPCG(7, 8))
	for range 50 {
		zones := []string{"a", "b", "c"}
		all := planNodes(3+r.IntN(10), zones...)
		nodes, sum := make([]ring.Weighted, len(all)), map[string]float64{}
		for i, node := range all {
			nodes[i] = ring.Weighted{Node: node, Weight: ring.Weight(500 + r.IntN(4000))}
			sum[node.Zone] += float64(nodes[i].Weight)
		}
		c := newCluster(t, partitions, 3, all)
		c.follow(nodes)
		load := c.loads()
		for _, node := range nodes {
			share := partitions * float64(node.Weight) / sum[node.Zone]
			if got := float64(load[node.ID]); got > max(share*(1+Slack), share+1) || got < share*(1-Slack)-float64(len(nodes)) {
				t.Errorf("%d nodes: %s of weight %s holds %v, its share of zone %s is %.1f", len(nodes), node.ID, node.Weight, got, node.Zone, share)
			}
		}
	}
}
