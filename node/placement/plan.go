package placement

import (
	"cmp"
	"slices"

	"kai/node/ring"
)

// Slack is how far above the mean, or by weights above its own share, what a node holds may be.
const Slack = 0.05

// Plan says which nodes should hold each partition, if these nodes are to hold all: the members of now,
// changed as little as it takes so that each partition has min(n, len(nodes)) replicas, in distinct
// zones while there are zones left, and no node holds more than Slack above its share, which is the mean
// when all weights are equal and zones have as many nodes; else nodes of a zone share what it must hold. The order tells who coordinates: who comes takes the
// place of who goes. It is a pure function; a plan carried out is a plan that changes nothing.
//
// Which node takes what nobody holds is told by the consistent-hash ring (preferred, by partition: see
// ring.PreferenceLists), as far as the bound allows.
func Plan(current []ring.Configuration, preferred [][]ring.NodeID, nodes []ring.Weighted, n int) [][]ring.NodeID {
	pl := newPlanner(current, preferred, nodes, n)
	if len(pl.nodes) == 0 {
		return pl.result()
	}
	for p := range pl.lists {
		for len(pl.lists[p]) < pl.n {
			pl.lists[p] = append(pl.lists[p], pl.pick(p, -1))
			pl.load[pl.lists[p][len(pl.lists[p])-1]]++
		}
	}
	pl.spread()
	pl.sort()
	for pl.balance() { // a receiver that nobody could give anything to may get something now
	}
	return pl.result()
}

type planner struct {
	nodes     []ring.Weighted // sorted by id
	index     map[ring.NodeID]int
	preferred [][]int
	zone      []int // by node
	n         int
	lists     [][]int   // by partition: the plan as it grows
	load      []int     // by node: partitions held
	share     []float64 // by node: partitions it should hold
	limit     []int     // by node: most partitions
	least     []int     // by node: that it should hold
	crowd     []int     // by zone; see count
	kept      []int     // by partition: how many of its list, the first, are from before
	// Of balance: partitions by node, those it holds and those it got by this plan.
	held, fresh [][]int
	can         [][]int // by node and zone: how many of its partitions zones allow it to give there; balance's own
}

func newPlanner(current []ring.Configuration, preferred [][]ring.NodeID, nodes []ring.Weighted, n int) *planner {
	pl := &planner{nodes: slices.Clone(nodes), index: map[ring.NodeID]int{}, lists: make([][]int, len(current)), load: make([]int, len(nodes)), zone: make([]int, len(nodes))}
	slices.SortFunc(pl.nodes, func(a, b ring.Weighted) int { return cmp.Compare(a.ID, b.ID) })
	numbers := map[string]int{}
	for i, node := range pl.nodes {
		pl.index[node.ID] = i
		if _, ok := numbers[node.Zone]; !ok {
			numbers[node.Zone] = len(numbers)
		}
		pl.zone[i] = numbers[node.Zone]
	}
	pl.crowd, pl.n = make([]int, len(numbers)), min(n, len(nodes))
	if pl.n == 0 {
		return pl
	}
	pl.setShares(len(current))
	pl.preferred, pl.kept = make([][]int, len(current)), make([]int, len(current))
	for p, c := range current {
		members := c.Members
		if len(c.Next) > 0 {
			members = c.Next // where it goes already
		}
		for _, id := range members {
			if i, ok := pl.index[id]; ok && len(pl.lists[p]) < pl.n {
				pl.lists[p] = append(pl.lists[p], i)
				pl.load[i]++
			}
		}
		pl.kept[p] = len(pl.lists[p])
		for _, id := range preferred[p] {
			if i, ok := pl.index[id]; ok {
				pl.preferred[p] = append(pl.preferred[p], i)
			}
		}
	}
	return pl
}

// fill is how much of its share node i holds.
func (pl *planner) fill(i int) float64 { return float64(pl.load[i]) / pl.share[i] }

// count fills crowd: how many of p's replicas, but the one at position without, are in each zone.
func (pl *planner) count(p, without int) {
	clear(pl.crowd)
	for at, i := range pl.lists[p] {
		if at != without {
			pl.crowd[pl.zone[i]]++
		}
	}
}

// crowded is how many of p's replicas, but the one at position without, share node i's zone.
func (pl *planner) crowded(p, i, without int) int {
	count := 0
	for at, j := range pl.lists[p] {
		if at != without && pl.zone[j] == pl.zone[i] {
			count++
		}
	}
	return count
}

// pick chooses a node for p that does not hold it, in the place of the one at position without (-1 for
// none): of the least crowded zones, below the limit, preferred by the ring, with the least load; in
// this order of importance. It looks at every node, a thousand perhaps for each replica that is missing.
func (pl *planner) pick(p, without int) int {
	best, bestRank := -1, [4]float64{}
	pl.count(p, without)
	for i := range pl.nodes {
		crowded := pl.crowd[pl.zone[i]]
		if best >= 0 && float64(crowded) > bestRank[0] || slices.Contains(pl.lists[p], i) {
			continue
		}
		full, place := 0, slices.Index(pl.preferred[p], i)
		if pl.load[i] >= pl.limit[i] {
			full = 1 + pl.load[i] - pl.limit[i]
		}
		if place < 0 {
			place = len(pl.preferred[p])
		}
		rank := [4]float64{float64(crowded), float64(full), float64(place), pl.fill(i)}
		if best < 0 || slices.Compare(rank[:], bestRank[:]) < 0 {
			best, bestRank = i, rank
		}
	}
	return best
}

func (pl *planner) replace(p, at, i int) {
	pl.load[pl.lists[p][at]]--
	pl.lists[p][at] = i
	pl.load[i]++
}

// spread moves replicas out of zones that they share, where a partition has less of another zone.
func (pl *planner) spread() {
	for p, list := range pl.lists {
		for at := len(list) - 1; at > 0; at-- {
			pl.count(p, at)
			mine := pl.crowd[pl.zone[list[at]]]
			if slices.Min(pl.crowd) >= mine {
				continue // no zone is better
			}
			if i := pl.pick(p, at); i >= 0 && pl.crowded(p, i, at) < mine {
				pl.replace(p, at, i)
			}
		}
	}
}

func (pl *planner) result() [][]ring.NodeID {
	lists := make([][]ring.NodeID, len(pl.lists))
	for p, list := range pl.lists {
		for _, i := range list {
			lists[p] = append(lists[p], pl.nodes[i].ID)
		}
	}
	return lists
}
