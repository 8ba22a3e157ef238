package placement

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"

	"kai/node/ring"
)

// Plans of nodes of equal weight are what they were before there were weights: the hash is of that
// build's plans, over clusters that grow and shrink at random.
func TestPlanGolden(t *testing.T) {
	r, h := rand.New(rand.NewPCG(5, 6)), fnv.New64a()
	for range 40 {
		zones := []string{"a", "b", "c", "d", "e"}[:1+r.IntN(5)]
		all := planNodes(20, zones...)
		pick := func() []ring.Node {
			var nodes []ring.Node
			for _, i := range r.Perm(20)[:1+r.IntN(20)] {
				nodes = append(nodes, all[i])
			}
			return nodes
		}
		c := newCluster(t, 1<<(5+r.IntN(4)), 1+r.IntN(5), pick())
		for range 4 {
			nodes := pick()
			for p, list := range c.plan(nodes) {
				fmt.Fprintln(h, p, list)
				c.confs[p] = ring.Configuration{Epoch: c.confs[p].Epoch + 2, Members: list}
			}
		}
	}
	if got := fmt.Sprintf("%016x", h.Sum64()); got != "4d89801483ce567c" {
		t.Errorf("plans have changed: %s", got)
	}
}
