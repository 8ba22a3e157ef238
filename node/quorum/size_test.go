package quorum

import (
	"fmt"
	"testing"

	"kai/node/ring"
)

func benchConfigurations(nodes, partitions int) []ring.Configuration {
	all := make([]ring.Node, nodes)
	for i := range all {
		all[i].ID = ring.NodeID(fmt.Sprintf("%016x", 0x9e3779b97f4a7c15*uint64(i+1)))
	}
	var confs []ring.Configuration
	for _, list := range ring.PreferenceLists(all, partitions, 3, 128) {
		confs = append(confs, ring.Configuration{Epoch: 1, Members: list})
	}
	return confs
}

func BenchmarkNewRoutes(b *testing.B) {
	for _, size := range []struct{ nodes, partitions int }{{3, 1024}, {256, 1024}, {3, 65536}, {1000, 65536}} {
		b.Run(fmt.Sprintf("%d nodes, %d partitions", size.nodes, size.partitions), func(b *testing.B) {
			confs := benchConfigurations(size.nodes, size.partitions)
			b.ReportAllocs()
			for b.Loop() {
				NewRoutes(confs, ring.Quorum{N: 3, R: 2, W: 2}, confs[0].Members[0], func(id ring.NodeID) Replica { return nil })
			}
		})
	}
}
