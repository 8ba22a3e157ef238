package quorum

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"kai/node/flight"
	"kai/node/record"
	"kai/node/repair"
)

// steady is a cluster whose wires keep no log, whose nodes keep hints, with one key written.
func steady(t testing.TB) *rig {
	r := newRig(t, 3, majority)
	for _, nd := range r.nodes {
		nd.opts.Hinter = repair.NewHints(repair.MaxHints, repair.MaxHintBytes)
		for _, w := range nd.wires {
			w.quiet = true
		}
	}
	r.want("set", r.do(0, set(string(make([]byte, 100)))), record.Stored, "")
	return r
}

// A get allocates nothing once it has run a few times: see PERFORMANCE.
func TestGetsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random")
	}
	for _, n := range []int{1, 16} {
		s := steady(t).nodes[1].Session()
		ops := make([]record.Op, n)
		for i := range ops {
			ops[i] = get()
		}
		res := make([]record.Result, n)
		if got := testing.AllocsPerRun(200, func() { s.Execute(ops, res) }); got != 0 {
			t.Errorf("%d gets: %v allocations", n, got)
		}
		if res[n-1].Status != record.Found {
			t.Errorf("%+v", res[n-1])
		}
	}
}

// Hints cost no allocation while all replicas answer.
func TestHintsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random")
	}
	for _, n := range []int{1, 16} {
		ops, res := make([]record.Op, n), make([]record.Result, n)
		for i := range ops {
			ops[i] = set(string(make([]byte, 100)))
			ops[i].Key = fmt.Append(nil, "key", i)
		}
		measure := func(r *rig) float64 {
			s := r.nodes[0].Session()
			return testing.AllocsPerRun(500, func() { s.Execute(ops, res) })
		}
		without := steady(t)
		for _, nd := range without.nodes {
			nd.opts.Hinter = nil
		}
		if with, without := measure(steady(t)), measure(without); with > without {
			t.Errorf("%d sets: %v allocations with hints, %v without", n, with, without)
		}
	}
}

// What the coordinator and three replicas in memory cost, without network and disk.
func BenchmarkGet(b *testing.B) {
	for _, n := range []int{1, 16} {
		for _, flights := range []bool{true, false} {
			b.Run(fmt.Sprintf("batch=%d/flights=%t", n, flights), func(b *testing.B) {
				r := steady(b)
				if !flights {
					for _, nd := range r.nodes {
						nd.opts.Flights = nil
					}
				}
				s := r.nodes[1].Session()
				ops := make([]record.Op, n)
				for i := range ops {
					ops[i] = get()
				}
				res := make([]record.Result, n)
				b.ReportAllocs()
				for b.Loop() {
					s.Execute(ops, res)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/get")
			})
		}
	}
}

// At the favoured coordinator, and forwarded to it.
func BenchmarkSet(b *testing.B) {
	for _, at := range []int{0, 1} {
		for _, n := range []int{1, 16} {
			b.Run(fmt.Sprintf("forwarded=%v/batch=%d", at == 1, n), func(b *testing.B) {
				s := steady(b).nodes[at].Session()
				ops := make([]record.Op, n)
				for i := range ops {
					ops[i] = set(string(make([]byte, 100)))
					ops[i].Key = fmt.Append(nil, "key", i)
				}
				res := make([]record.Result, n)
				b.ReportAllocs()
				for b.Loop() {
					s.Execute(ops, res)
				}
				if res[0].Status != record.Stored {
					b.Fatalf("%+v", res[0])
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/set")
			})
		}
	}
}

// Clients in parallel, each on keys of its own: what locks cost.
func BenchmarkParallel(b *testing.B) {
	for _, kind := range []record.OpKind{record.Get, record.Set} {
		b.Run(kind.String(), func(b *testing.B) {
			r := steady(b)
			var next atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				s := r.nodes[0].Session()
				o := set(string(make([]byte, 100)))
				o.Key = fmt.Append(nil, "client", next.Add(1))
				res := make([]record.Result, 1)
				s.Execute([]record.Op{o}, res)
				o.Kind = kind
				ops := []record.Op{o}
				for pb.Next() {
					s.Execute(ops, res)
				}
			})
		})
	}
}

// What flights cost a request of which nothing is kept, on one processor, so that all that is done for it counts: at most half a microsecond, and no allocation. Only
// with KAI_COST=1 (make cost), since figures need a machine that does nothing else. With and without take turns of a millisecond or so, and the median of their differences counts.
func TestCostOfFlights(t *testing.T) {
	if os.Getenv("KAI_COST") == "" {
		t.Skip("SKIPPED: KAI_COST=1 measures (make cost)")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const turns, turn = 500, 1600 // requests
	for _, kind := range []struct {
		name string
		at   int
		op   func() record.Op
	}{{"get", 1, get}, {"set", 0, func() record.Op { return set(string(make([]byte, 100))) }}, {"forwarded set", 1, func() record.Op { return set(string(make([]byte, 100))) }}} {
		for _, n := range []int{1, 16} {
			var run [2]func()
			var allocations [2]float64
			for with := range run {
				r := steady(t)
				for _, nd := range r.nodes {
					if nd.opts.Flights = nil; with == 1 {
						nd.opts.Flights = flight.New(flight.Options{Slow: time.Second})
					}
				}
				s, ops, res := r.nodes[kind.at].Session(), make([]record.Op, n), make([]record.Result, n)
				for i := range ops {
					ops[i] = kind.op()
					ops[i].Key = fmt.Append(nil, "key", i)
					stored := set(string(make([]byte, 100)))
					stored.Key = ops[i].Key
					r.want("set", r.do(0, stored), record.Stored, "")
				}
				run[with] = func() { s.Execute(ops, res) }
				allocations[with] = testing.AllocsPerRun(1000, run[with])
			}
			if allocations[1] > allocations[0] {
				t.Errorf("%ss, %d: %v allocations with flights, %v without", kind.name, n, allocations[1], allocations[0])
			}
			var costs, bases []float64
			for range turns {
				var took [2]time.Duration
				for with := range run {
					began := time.Now()
					for range turn / n {
						run[with]()
					}
					took[with] = time.Since(began)
				}
				costs, bases = append(costs, float64(took[1]-took[0])/turn), append(bases, float64(took[0])/turn)
			}
			slices.Sort(costs)
			slices.Sort(bases)
			t.Logf("batches of %d: a %s takes %.0f ns without flights, and with them %.0f more", n, kind.name, bases[turns/2], costs[turns/2])
			if costs[turns/2] > 500 {
				t.Errorf("flights cost a %s %.0f ns, more than 500", kind.name, costs[turns/2])
			}
		}
	}
}
