package placement

import (
	"math"

	"kai/node/ring"
)

// Shares is how many of the partitions each node should hold, as a Plan reckons.
func Shares(nodes []ring.Weighted, partitions, n int) map[ring.NodeID]float64 {
	shares := make(map[ring.NodeID]float64, len(nodes))
	pl := newPlanner(make([]ring.Configuration, partitions), make([][]ring.NodeID, partitions), nodes, n)
	for i, share := range pl.share {
		shares[pl.nodes[i].ID] = share
	}
	return shares
}

// setShares says what each node should hold of so many partitions: the mean if all weights are equal, and zones have as many nodes each.
func (pl *planner) setShares(partitions int) {
	count := len(pl.nodes)
	pl.share, pl.limit, pl.least = make([]float64, count), make([]int, count), make([]int, count)
	all := partitions * pl.n
	if pl.alike() {
		for i := range pl.nodes {
			pl.share[i] = float64(all) / float64(count)
			pl.least[i] = all / count
			pl.limit[i] = max((all+count-1)/count, int(float64(all)*(1+Slack)/float64(count)))
		}
		return
	}
	pl.weigh(float64(partitions))
	for i, share := range pl.share {
		pl.least[i] = int(share + rounding)
		pl.limit[i] = max(int(math.Ceil(share-rounding)), int(share*(1+Slack)))
	}
}

// rounding is far more than what weigh is off by, and far less than a partition.
const rounding = 1e-6

// alike reports whether all nodes have the same weight, and all zones as many of them.
func (pl *planner) alike() bool {
	sizes := make([]int, len(pl.crowd))
	for i, node := range pl.nodes {
		sizes[pl.zone[i]]++
		if node.Weight.Thousandths() != pl.nodes[0].Weight.Thousandths() {
			return false
		}
	}
	for _, size := range sizes {
		if size != sizes[0] {
			return false
		}
	}
	return true
}

// weigh shares the partitions out by weight, within what can be: a node holds a partition once, and each partition
// is spread over the zones as evenly as their sizes allow. So the nodes of a zone share what the zone must hold.
func (pl *planner) weigh(partitions float64) {
	zones := make([][]int, len(pl.crowd))
	for i, z := range pl.zone {
		zones[z] = append(zones[z], i)
	}
	level, left := 0, pl.n // every zone has level replicas of a partition, or as many as it has nodes
	for {
		more := 0
		for _, nodes := range zones {
			if len(nodes) > level {
				more++
			}
		}
		if more == 0 || more > left {
			break
		}
		level, left = level+1, left-more
	}
	// held is what a zone holds if a thousandth of weight stands for rate partitions.
	held := func(nodes []int, rate float64) (sum float64) {
		for _, i := range nodes {
			sum += min(partitions, rate*float64(pl.nodes[i].Weight.Thousandths()))
		}
		return sum
	}
	total := func(nodes []int, rate float64) float64 {
		least, most := float64(min(level, len(nodes))), float64(min(level+1, len(nodes)))
		return min(max(held(nodes, rate), least*partitions), most*partitions)
	}
	rate := solve(partitions, partitions*float64(pl.n), func(rate float64) (sum float64) {
		for _, nodes := range zones {
			sum += total(nodes, rate)
		}
		return sum
	})
	for _, nodes := range zones {
		own := solve(partitions, total(nodes, rate), func(r float64) float64 { return held(nodes, r) })
		for _, i := range nodes {
			pl.share[i] = min(partitions, own*float64(pl.nodes[i].Weight.Thousandths()))
		}
	}
}

// solve finds where f, which does not fall between 0 and most, reaches want.
func solve(most, want float64, f func(float64) float64) float64 {
	low, high := 0.0, most
	for range 100 {
		if mid := (low + high) / 2; f(mid) < want {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}
