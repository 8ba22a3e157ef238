package placement

import (
	"cmp"
	"slices"
)

// sort fills what balance works on.
func (pl *planner) sort() {
	pl.held, pl.fresh = make([][]int, len(pl.nodes)), make([][]int, len(pl.nodes))
	pl.can = make([][]int, len(pl.nodes))
	for i := range pl.can {
		pl.can[i] = make([]int, len(pl.crowd))
	}
	for p, list := range pl.lists {
		for at, i := range list {
			if at < pl.kept[p] {
				pl.held[i] = append(pl.held[i], p)
			} else {
				pl.fresh[i] = append(pl.fresh[i], p)
			}
		}
		pl.allow(p, 1)
	}
}

// balance moves replicas from the nodes that hold most to those that hold least, by their shares, until nobody is
// above its limit, and nobody below its share while another is above its own; as far as zones allow. Each step takes
// one from what is above the limits, or from what is missing to the shares, so it ends.
func (pl *planner) balance() (moved bool) {
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
		case pl.give(to):
			moved = true
		default:
			done[to] = true
		}
	}
}

// allow adds by to can for each holder of p and each zone where p may go in its place: its own, and
// those that are less crowded.
func (pl *planner) allow(p, by int) {
	pl.count(p, -1)
	for _, i := range pl.lists[p] {
		for z, crowded := range pl.crowd {
			if z == pl.zone[i] || crowded < pl.crowd[pl.zone[i]] {
				pl.can[i][z] += by
			}
		}
	}
}

// give has the node that holds most, and can, give one partition to node to.
//
// In nearly all cases the first donor can, once zones are heeded. So the others are put in order only
// when it cannot: a cluster of a thousand nodes that doubles has a hundred thousand replicas to give.
func (pl *planner) give(to int) bool {
	var donors []int
	first := -1
	for i := range pl.nodes {
		if pl.donates(i, to) && (first < 0 || pl.fill(i) > pl.fill(first)) {
			first = i
		}
	}
	if first < 0 {
		return false
	}
	if pl.giveFrom(first, to) {
		return true
	}
	for i := range pl.nodes {
		if i != first && pl.donates(i, to) {
			donors = append(donors, i)
		}
	}
	slices.SortFunc(donors, func(a, b int) int { return cmp.Or(cmp.Compare(pl.fill(b), pl.fill(a)), a-b) })
	return slices.ContainsFunc(donors, func(from int) bool { return pl.giveFrom(from, to) })
}

// donates reports whether node i holds too much for node to to hold so little, and zones do not forbid
// that it gives.
func (pl *planner) donates(i, to int) bool {
	over := pl.load[i] > pl.limit[i] || pl.load[i] > pl.least[i] && pl.load[to] < pl.least[to]
	return over && pl.can[i][pl.zone[to]] > 0
}

// giveFrom has node from give node to a partition; false if there is none. Rather one that only this plan
// gave it, so that nothing moves twice, or at all.
func (pl *planner) giveFrom(from, to int) bool {
	if at := pl.choose(pl.fresh[from], from, to); at >= 0 {
		pl.hand(&pl.fresh[from], at, from, to)
		return true
	}
	if at := pl.choose(pl.held[from], from, to); at >= 0 {
		pl.hand(&pl.held[from], at, from, to)
		return true
	}
	return false
}

// choices bounds how many partitions are looked at for the one that prefers its new node most: with few
// nodes each holds nearly all, and gives tens of thousands.
const choices = 64

// choose finds where in held, partitions of node from, one is that node to may have, and that prefers it
// most of those looked at; -1 if there is none. It begins at a place that depends on both, or who
// comes later would look at the same in vain.
func (pl *planner) choose(held []int, from, to int) int {
	best, bestPlace, seen := -1, 0, 0
	for k := range held {
		i := (k + pl.load[from] + to*choices) % len(held)
		p := held[i]
		if slices.Contains(pl.lists[p], to) || pl.zone[from] != pl.zone[to] && pl.crowded(p, to, -1) >= pl.crowded(p, from, -1) {
			continue
		}
		place := slices.Index(pl.preferred[p], to)
		if place < 0 {
			place = len(pl.preferred[p])
		}
		if best < 0 || place < bestPlace {
			best, bestPlace = i, place
		}
		if seen++; place == 0 || seen == choices {
			break
		}
	}
	return best
}

// hand gives the partition at that place of held, partitions of node from, to node to.
func (pl *planner) hand(held *[]int, at, from, to int) {
	p, last := (*held)[at], len(*held)-1
	(*held)[at] = (*held)[last]
	*held = (*held)[:last]
	pl.allow(p, -1)
	pl.replace(p, slices.Index(pl.lists[p], from), to)
	pl.allow(p, 1)
	pl.fresh[to] = append(pl.fresh[to], p)
}
