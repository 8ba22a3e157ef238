package memcache

import (
	"testing"
	"time"

	"kai/node/record"
)

func TestLatencies(t *testing.T) {
	s := &Server{totals: make([]shard, 2)}
	ops := []record.Op{{Kind: record.Get}, {Kind: record.Get}, {Kind: record.Set}, {Kind: record.Get}, {Kind: record.Restore}}
	results := []record.Result{{Status: record.Found}, {Status: record.Found}, {Status: record.Unknown}, {Status: record.NotFound}, {Status: record.Stored}}
	s.totals[0].latencies.add(ops, results, 150*time.Microsecond)
	s.totals[1].latencies.add(ops[:2], results, 10*time.Second)
	s.totals[1].latencies.add(ops[:1], results, 50*time.Microsecond) // a bound is its bucket's own
	got := map[string][]uint64{}
	sums := map[string]float64{}
	s.Latencies(func(command, outcome string, buckets []uint64, sum float64) {
		got[command+" "+outcome] = append([]uint64(nil), buckets...)
		sums[command+" "+outcome] = sum
	})
	if len(got) != 3 || len(got["get ok"]) != numBounds+1 {
		t.Fatalf("%v", got)
	}
	if g := got["get ok"]; g[0] != 1 || g[2] != 2 || g[numBounds] != 2 || sums["get ok"] != 20.00035 {
		t.Errorf("get ok: %v, %v s", g, sums["get ok"])
	}
	if got["set unknown"][2] != 1 || got["get miss"][2] != 1 || sums["set unknown"] != 0.00015 {
		t.Errorf("%v %v", got, sums)
	}
}

// BenchmarkLatencies is what a command costs, and one of a batch of 16.
func BenchmarkLatencies(b *testing.B) {
	for _, n := range []int{1, 16} {
		b.Run(map[int]string{1: "alone", 16: "of 16"}[n], func(b *testing.B) {
			ops, results := make([]record.Op, n), make([]record.Result, n)
			for i := range results {
				results[i].Status = record.Found
			}
			var l latencies
			b.ReportAllocs()
			for b.Loop() {
				l.add(ops, results, 300*time.Microsecond)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/command")
		})
	}
}
