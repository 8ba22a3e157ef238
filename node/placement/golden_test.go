package placement

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"

	"kai/node/ring"
)

// Plans of nodes of equal weight stay what they are: the hash is of the plans of the build that first heeded, for equal weights too, how much
// zones of unequal size must hold, over clusters that grow and shrink at random.
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
	if got := fmt.Sprintf("%016x", h.Sum64()); got != "d6fc5c68995c7cb0" {
		t.Errorf("plans have changed: %s", got)
	}
}
