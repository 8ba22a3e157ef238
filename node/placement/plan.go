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
// when all weights are equal (zones of unequal size may prevent that: zones come first). The order tells who coordinates: who comes takes the
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
	for pl.balance() { // a receiver that nobody could give anything to may get something now
	}
	return pl.result()
}

type planner struct {
	nodes     []ring.Weighted // sorted by id
	index     map[ring.NodeID]int
	preferred [][]int
	zone      []int // by node
	zones     int
	n         int
	lists     [][]int   // by partition: the plan as it grows
	load      []int     // by node: partitions held
	share     []float64 // by node: partitions it should hold
	limit     []int     // by node: most partitions
	least     []int     // by node: that it should hold
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
	pl.zones, pl.n = len(numbers), min(n, len(nodes))
	if pl.n == 0 {
		return pl
	}
	pl.setShares(len(current))
	pl.preferred = make([][]int, len(current))
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
// this order of importance.
func (pl *planner) pick(p, without int) int {
	best, bestRank := -1, [4]float64{}
	for i := range pl.nodes {
		if slices.Contains(pl.lists[p], i) {
			continue
		}
		full, place := 0, slices.Index(pl.preferred[p], i)
		if pl.load[i] >= pl.limit[i] {
			full = 1 + pl.load[i] - pl.limit[i]
		}
		if place < 0 {
			place = len(pl.preferred[p])
		}
		rank := [4]float64{float64(pl.crowded(p, i, without)), float64(full), float64(place), pl.fill(i)}
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
			mine := pl.crowded(p, list[at], at)
			if mine == 0 {
				continue
			}
			if i := pl.pick(p, at); i >= 0 && pl.crowded(p, i, at) < mine {
				pl.replace(p, at, i)
			}
		}
	}
}

// balance moves replicas from the nodes that hold most to those that hold least, by their shares, until nobody is
// above its limit, and nobody below its share while another is above its own; as far as zones allow. Each step takes
// one from what is above the limits, or from what is missing to the shares, so it ends.
func (pl *planner) balance() (moved bool) {
	held := make([][]int, len(pl.nodes)) // partitions by node
	for p, list := range pl.lists {
		for _, i := range list {
			held[i] = append(held[i], p)
		}
	}
	done := make([]bool, len(pl.nodes)) // receivers that nobody can give anything to
	for {
		to := -1
		for i := range pl.nodes {
			if !done[i] && pl.load[i] < pl.limit[i] && (to < 0 || pl.fill(i) < pl.fill(to)) {
				to = i
			}
		}
		switch {
		case to < 0:
			return moved
		case pl.give(to, held):
			moved = true
		default:
			done[to] = true
		}
	}
}

// give has the node that holds most, and can, give one partition to node to.
func (pl *planner) give(to int, held [][]int) bool {
	donors := make([]int, 0, len(pl.nodes))
	for i := range pl.nodes {
		if pl.load[i] > pl.limit[i] || pl.load[i] > pl.least[i] && pl.load[to] < pl.least[to] {
			donors = append(donors, i)
		}
	}
	slices.SortFunc(donors, func(a, b int) int { return cmp.Or(cmp.Compare(pl.fill(b), pl.fill(a)), a-b) })
	for _, from := range donors {
		best, bestAt, bestPlace := -1, 0, 0
		for _, p := range held[from] {
			at := slices.Index(pl.lists[p], from)
			if at < 0 || slices.Contains(pl.lists[p], to) || pl.crowded(p, to, at) > pl.crowded(p, from, at) {
				continue
			}
			place := slices.Index(pl.preferred[p], to)
			if place < 0 {
				place = len(pl.preferred[p])
			}
			if best < 0 || place < bestPlace {
				best, bestAt, bestPlace = p, at, place
			}
			if place == 0 {
				break
			}
		}
		if best >= 0 {
			pl.replace(best, bestAt, to)
			held[to] = append(held[to], best)
			return true
		}
	}
	return false
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
