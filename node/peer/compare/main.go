// Command compare measures three ways to carry the same exchange between two nodes: gRPC and DRPC,
// each over one bidirectional stream, and Kai's own framing (kai/node/peer). It is a module of its
// own so that Kai does not depend on what it was measured against.
//
// All three carry the same bytes, made by kai/node/message, and verify them; gRPC and DRPC get a
// codec that copies bytes and nothing else, which is the best case for them (no protobuf). All
// three run one connection over loopback TCP, client and server in this process.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// exchange asks for one call at a time on behalf of caller i. It is used by one goroutine.
type exchange func(q *message.Request)

// transport sets up client and server for n callers.
type transport struct {
	name string
	open func(n int) (callers []exchange, stop func(), err error)
}

var key = []byte("a key that has thirty bytes ok")

func requests() map[string]*message.Request {
	rec := record.Append(nil, key, &record.Record{Kind: record.Value, Value: make([]byte, 100)})
	read := &message.Request{Kind: message.Read, Key: key, Hash: ring.Hash(key), Timeout: time.Minute}
	put := *read
	put.Kind, put.Record, put.Ballot = message.Accept, rec, record.Ballot{Epoch: 1, Stamp: 1}
	return map[string]*message.Request{"read": read, "accept": &put}
}

// reply is what the server side answers, in all three transports.
func reply(q *message.Request, r *message.Reply) {
	r.Status = message.OK
	if q.Kind == message.Read {
		var value [100]byte
		r.Record = record.Append(r.Record[:0], q.Key, &record.Record{Kind: record.Value, Value: value[:]})
	}
}

// figures of one run.
type figures struct{ usPerOp, opsPerS, allocs, cpuPerOp float64 }

func main() {
	rounds := flag.Int("rounds", 5, "runs of each case; the median is printed")
	length := flag.Duration("time", 500*time.Millisecond, "length of a run")
	flag.Parse()
	transports := []transport{{"gRPC stream", openGRPC}, {"DRPC stream", openDRPC}, {"own framing", openOwn}}
	qs := requests()
	fmt.Println("| exchange | callers | transport | µs/op | ops/s | allocs/op | CPU µs/op | ops/s min–max |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	for _, name := range []string{"read", "accept"} {
		for _, callers := range []int{1, 32, 256} {
			runs := make([][]figures, len(transports))
			for range *rounds { // interleaved, so that a noisy moment hits all
				for i, t := range transports {
					f, err := measure(t, callers, qs[name], *length)
					if err != nil {
						fmt.Fprintf(os.Stderr, "%s: %v\n", t.name, err)
						os.Exit(1)
					}
					runs[i] = append(runs[i], f)
				}
			}
			for i, t := range transports {
				f, ops := medians(runs[i])
				fmt.Printf("| %s | %d | %s | %.1f | %.0f | %.1f | %.1f | %.0f–%.0f |\n", name, callers, t.name,
					f.usPerOp, f.opsPerS, f.allocs, f.cpuPerOp, ops[0], ops[len(ops)-1])
			}
		}
	}
}

func medians(runs []figures) (figures, []float64) {
	mid := func(of func(figures) float64) (float64, []float64) {
		var v []float64
		for _, r := range runs {
			v = append(v, of(r))
		}
		slices.Sort(v)
		return v[len(v)/2], v
	}
	var f figures
	var ops []float64
	f.usPerOp, _ = mid(func(f figures) float64 { return f.usPerOp })
	f.opsPerS, ops = mid(func(f figures) float64 { return f.opsPerS })
	f.allocs, _ = mid(func(f figures) float64 { return f.allocs })
	f.cpuPerOp, _ = mid(func(f figures) float64 { return f.cpuPerOp })
	return f, ops
}

func measure(t transport, n int, q *message.Request, length time.Duration) (figures, error) {
	callers, stop, err := t.open(n)
	if err != nil {
		return figures{}, err
	}
	defer stop()
	run(callers, q, length/10) // warm up
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := cpuTime()
	start := time.Now()
	ops := float64(run(callers, q, length))
	took := time.Since(start)
	cpu = cpuTime() - cpu
	runtime.ReadMemStats(&after)
	return figures{
		usPerOp:  float64(took.Microseconds()) * float64(n) / ops,
		opsPerS:  ops / took.Seconds(),
		allocs:   float64(after.Mallocs-before.Mallocs) / ops,
		cpuPerOp: float64(cpu.Nanoseconds()) / 1e3 / ops,
	}, nil
}

// run lets every caller ask, one call after the other, and returns how many calls there were.
func run(callers []exchange, q *message.Request, length time.Duration) int {
	counts := make([]int, len(callers))
	end := time.Now().Add(length)
	var all sync.WaitGroup
	for i, ask := range callers {
		all.Go(func() {
			for n := 0; ; n++ {
				if n%8 == 0 && time.Now().After(end) {
					counts[i] = n
					return
				}
				ask(q)
			}
		})
	}
	all.Wait()
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
