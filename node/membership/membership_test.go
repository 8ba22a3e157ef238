package membership

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestThreeNodesFoundOneCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		w.seeds = []string{nodeAddr(1), nodeAddr(2), nodeAddr(3)}
		var nodes []*node
		for i := 1; i <= 3; i++ {
			nodes = append(nodes, w.start(i, nodeAddr(i), &disk{}, nil))
		}
		start := time.Now()
		w.eventually(time.Minute, "one cluster", one(nodes...))
		w.eventually(time.Minute, "all alive", all("1 2 3", nodes...))
		t.Logf("founded after %v", time.Since(start))
		f, _ := nodes[2].Founded()
		if len(f.Nodes) != 3 || f.Nodes[0].ID != nodeID(1) || f.Nodes[2].Zone != "z" || f.Name != "kai" || f.Partitions != 64 {
			t.Errorf("founding %+v", f)
		}
		w.eventually(time.Minute, "the cluster id is gossiped", func() bool {
			for _, o := range nodes[0].View().Nodes {
				if o.ClusterID != f.ClusterID {
					return false
				}
			}
			return true
		})
	})
}

func TestFiveAtOnceFoundOneCluster(t *testing.T) {
	seeds := 30
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		for _, expect := range []int{3, 5} {
			t.Run(fmt.Sprintf("%d of 5 seed %d", expect, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, uint64(seed))
					defer w.close()
					w.net.delay, w.net.loss = 80*time.Millisecond, 0.2
					var nodes []*node
					for i := 1; i <= 5; i++ {
						w.seeds = append(w.seeds, nodeAddr(i))
					}
					for i := 1; i <= 5; i++ {
						nodes = append(nodes, w.start(i, nodeAddr(i), &disk{}, func(o *Options) { o.Expect = expect }))
					}
					w.eventually(5*time.Minute, "one cluster", one(nodes...))
				})
			})
		}
	}
}
