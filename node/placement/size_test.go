package placement

import (
	"fmt"
	"testing"

	"kai/node/ring"
)

func benchTable(b *testing.B, nodes, partitions int) *Table {
	f := ring.Founding{Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: partitions, VNodes: 128, Nodes: planNodes(nodes, "a", "b", "c")}
	t, err := New(f, Configurations(f), nil)
	if err != nil {
		b.Fatal(err)
	}
	return t
}

func BenchmarkAdopt(b *testing.B) {
	for _, partitions := range []int{1024, 65536} {
		b.Run(fmt.Sprintf("%d partitions", partitions), func(b *testing.B) {
			t := benchTable(b, 1000, partitions)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				p := ring.Partition(n * 7919 % partitions)
				c := t.Configuration(p)
				c.Epoch++
				if n++; !t.Adopt(p, c) {
					b.Fatal("not adopted")
				}
			}
		})
	}
}

// A pass over everything, as the mover makes at each adoption.
func BenchmarkScan(b *testing.B) {
	t := benchTable(b, 1000, 65536)
	for b.Loop() {
		for p := range ring.Partition(65536) {
			if len(t.Configuration(p).Next) > 0 {
				b.Fatal("joint")
			}
		}
	}
}

func BenchmarkGrow(b *testing.B) {
	for _, size := range []struct{ nodes, more, partitions int }{{100, 1, 16384}, {999, 1, 65536}, {990, 10, 65536}, {500, 500, 65536}, {1000, -1, 65536}} {
		b.Run(fmt.Sprintf("%d%+d nodes, %d partitions", size.nodes, size.more, size.partitions), func(b *testing.B) {
			nodes := planNodes(max(size.nodes, size.nodes+size.more), "a", "b", "c")
			c := newCluster(b, size.partitions, 3, nodes[:size.nodes])
			for p, list := range Plan(c.confs, ring.PreferenceLists(nodes[:size.nodes], size.partitions, 3, 128), ordinary(nodes[:size.nodes]), 3) {
				c.confs[p].Members = list
			}
			after := nodes[:size.nodes+size.more]
			preferred := ring.PreferenceLists(after, size.partitions, 3, 128)
			for b.Loop() {
				Plan(c.confs, preferred, ordinary(after), 3)
			}
		})
	}
}
