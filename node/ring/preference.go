package ring

import (
	"cmp"
	"math/bits"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// favouredSlack bounds how many partitions may favour one node as coordinator: this share above
// the mean. Plain consistent hashing with 128 vnodes strays by 10 to 20 %, and with N nodes all
// of which hold everything that stray is the whole imbalance of the cluster.
const favouredSlack = 0.05

// PreferenceLists says, for every partition, which nodes should hold it, the favoured coordinator
// first. It is a pure function of the set of nodes: every node, of every build, must compute the
// same lists, because the first configurations of a cluster follow from its Founding by it. A
// change of its results is a change of format; the golden test stands guard.
//
// It is a consistent-hash ring (Karger et al. 1997) with vnodes tokens for each node. A partition
// stands where its slice of the hash space begins, and its list is the nodes met walking clockwise:
// each once, of distinct zones while there are zones left, min(n, len(nodes)) of them. partitions
// is a power of two; nodes with the same id count once. Without nodes the lists are empty.
func PreferenceLists(nodes []Node, partitions, n, vnodes int) [][]NodeID {
	weighted := make([]Weighted, len(nodes))
	for i, node := range nodes {
		weighted[i].Node = node
	}
	return WeightedLists(weighted, partitions, n, vnodes)
}

// WeightedLists is PreferenceLists of nodes that have more or fewer tokens, and are favoured by more or
// fewer partitions, by their weights; with equal weights it is the same.
func WeightedLists(nodes []Weighted, partitions, n, vnodes int) [][]NodeID {
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b Weighted) int { return cmp.Compare(a.ID, b.ID) })
	nodes = slices.CompactFunc(nodes, func(a, b Weighted) bool { return a.ID == b.ID })
	lists := make([][]NodeID, partitions)
	if n = min(n, len(nodes)); n < 1 {
		return lists
	}
	w := newWalker(nodes, n, vnodes)
	limits := favouredLimits(nodes, partitions)
	shift := 64 - bits.TrailingZeros(uint(partitions))
	favoured := make([]int, len(nodes))
	for p := range lists {
		list := w.walk(uint64(p) << shift)
		favour(list, favoured, limits)
		lists[p] = make([]NodeID, n)
		for i, node := range list {
			lists[p][i] = nodes[node].ID
		}
	}
	return lists
}

// favouredLimits are the numbers of partitions that may favour each of the nodes; at least its share,
// rounded up, so that there is always room for all.
func favouredLimits(nodes []Weighted, partitions int) []int {
	sum, limits := 0, make([]int, len(nodes))
	for _, node := range nodes {
		sum += node.Weight.Thousandths()
	}
	for i, node := range nodes {
		// Without common divisors, so that equal weights, whatever they are, give the same limit.
		a, b := node.Weight.Thousandths(), sum
		for b != 0 {
			a, b = b, a%b
		}
		part, whole := node.Weight.Thousandths()/a, sum/a
		limits[i] = max((partitions*part+whole-1)/whole, int(float64(partitions)*(1+favouredSlack)*float64(part)/float64(whole)))
	}
	return limits
}

// favour moves the first node of the list that is below its limit to the front, and counts it. When
// all are at their limits (late partitions of a large cluster), the least favoured one it is.
func favour(list []int, favoured, limits []int) {
	at := slices.IndexFunc(list, func(node int) bool { return favoured[node] < limits[node] })
	if at < 0 {
		at = 0
		for i, node := range list {
			if favoured[node]*limits[list[at]] < favoured[list[at]]*limits[node] {
				at = i
			}
		}
	}
	first := list[at]
	copy(list[1:at+1], list[:at])
	list[0] = first
	favoured[first]++
}

// token is one of the places of a node on the ring.
type token struct {
	at   uint64
	node int // index into the sorted nodes
}

type walker struct {
	tokens []token
	zone   []int // zone number by node
	zones  int
	n      int
	list   []int // the walk's result, reused
	spare  []int // nodes passed over because of their zone, in the order met
}

func newWalker(nodes []Weighted, n, vnodes int) *walker {
	w := &walker{n: n, zone: make([]int, len(nodes)), tokens: make([]token, 0, len(nodes)*vnodes)}
	numbers := map[string]int{}
	for i, node := range nodes {
		z, ok := numbers[node.Zone]
		if !ok {
			z = len(numbers)
			numbers[node.Zone] = z
		}
		w.zone[i] = z
		for v := range max(1, (vnodes*node.Weight.Thousandths()+int(WeightOne)/2)/int(WeightOne)) {
			h := xxhash.Sum64String(string(node.ID) + "/" + strconv.Itoa(v))
			w.tokens = append(w.tokens, token{h, i})
		}
	}
	w.zones = len(numbers)
	slices.SortFunc(w.tokens, func(a, b token) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.node, b.node))
	})
	return w
}

// walk returns the nodes for a position; the slice is valid until the next walk.
func (w *walker) walk(from uint64) []int {
	w.list, w.spare = w.list[:0], w.spare[:0]
	start, _ := slices.BinarySearchFunc(w.tokens, from, func(t token, at uint64) int { return cmp.Compare(t.at, at) })
	for i := range w.tokens {
		node := w.tokens[(start+i)%len(w.tokens)].node
		switch {
		case slices.Contains(w.list, node):
		case !slices.ContainsFunc(w.list, func(o int) bool { return w.zone[o] == w.zone[node] }):
			w.list = append(w.list, node)
		case len(w.spare) < w.n && !slices.Contains(w.spare, node):
			w.spare = append(w.spare, node)
		}
		if len(w.list) == w.n || len(w.list) == w.zones && len(w.list)+len(w.spare) >= w.n {
			break
		}
	}
	w.list = append(w.list, w.spare[:min(len(w.spare), w.n-len(w.list))]...)
	return w.list
}
