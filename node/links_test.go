package node

import (
	"runtime"
	"testing"

	"kai/node/ring"
)

// Whoever sees the data path finds routes in it: without them all keys are refused, and the node would
// count as ready, since it misses no quorum of the partitions it knows.
func TestDataPathOpensWithRoutes(t *testing.T) {
	n, d, end := benchNode(t, "", ring.Founding{ClusterID: "c", Name: "kai", Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 1024, VNodes: 128})
	defer end()
	n.data.Store(nil)
	n.links = newLinks(n)
	seen := make(chan int)
	go func() {
		for n.data.Load() == nil {
			runtime.Gosched()
		}
		seen <- n.data.Load().coordinator.Routes().Len()
	}()
	n.links.open(d)
	if routes := <-seen; routes != 1024 {
		t.Errorf("%d routes when the data path is seen", routes)
	}
	if ready, why := (source{n}).Ready(); !ready {
		t.Error(why)
	}
}
