package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latencies are recorded in nanoseconds with two digits (1 %): small enough to stay in the cache.
const (
	shortest = int64(time.Microsecond)
	longest  = int64(2 * time.Minute)
	digits   = 2
)

// tally is what one connection counted.
type tally struct {
	get, set *hdrhistogram.Histogram
	outcomes [numOutcomes]uint64
	lost     atomic.Uint64 // could not be sent: the connection was gone
	first    error         // first fault seen, to have something to show
}

func newTally() tally {
	return tally{
		get: hdrhistogram.New(shortest, longest, digits),
		set: hdrhistogram.New(shortest, longest, digits),
	}
}

func (t *tally) note(err error) {
	if t.first == nil {
		t.first = err
	}
}

// count records the outcome of q, whose reply came in with the bytes last read. What was served
// counts only when it was due within the window; faults count from the first request on.
func (c *client) count(w window, q request, o outcome) {
	t := &c.tally
	switch o {
	case hit, miss, stored:
		if q.due < w.begin || q.due >= w.end {
			return
		}
		h := t.get
		if q.set {
			h = t.set
		}
		_ = h.RecordValue(min(max(int64(c.readAt-q.due), shortest), longest)) // cannot fail within bounds
	}
	t.outcomes[o]++
}

// Latency sums up a histogram, in microseconds.
type Latency struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p999_us"`
	Max   float64 `json:"max_us"`
}

func summarize(h *hdrhistogram.Histogram) Latency {
	us := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e3 }
	return Latency{Count: h.TotalCount(), P50: us(50), P99: us(99), P999: us(99.9), Max: float64(h.Max()) / 1e3}
}

// Result is what a Load measured.
type Result struct {
	Load Load `json:"load"`
	// OpsPerSecond counts requests that were served: hits, misses, stores.
	OpsPerSecond float64 `json:"ops_per_second"`
	Get          Latency `json:"get"`
	Set          Latency `json:"set"`
	Hits         uint64  `json:"hits"`
	Misses       uint64  `json:"misses"`
	// Refused were answered with an error line, Wrong with something that cannot be, Broken not at all.
	Refused uint64 `json:"refused"`
	Wrong   uint64 `json:"wrong"`
	Broken  uint64 `json:"broken"`
	// FirstFault shows one of the faults counted, if any.
	FirstFault string `json:"first_fault,omitempty"`
	// LoaderCPU is the generator's own processor time per request, in microseconds.
	LoaderCPU float64 `json:"loader_cpu_us"`
}

// merge sums up what all connections counted. cpu is the generator's own during the run.
func merge(l Load, clients []*client, cpu time.Duration) Result {
	sum := newTally()
	for _, c := range clients {
		sum.get.Merge(c.tally.get)
		sum.set.Merge(c.tally.set)
		for o, n := range c.tally.outcomes {
			sum.outcomes[o] += n
		}
		sum.lost.Add(c.tally.lost.Load())
		if c.tally.first != nil {
			sum.note(c.tally.first)
		}
	}
	o := &sum.outcomes
	served := o[hit] + o[miss] + o[stored]
	r := Result{
		Load: l, Get: summarize(sum.get), Set: summarize(sum.set),
		OpsPerSecond: float64(served) / l.Duration.Seconds(),
		Hits:         o[hit], Misses: o[miss], Refused: o[refused], Wrong: o[wrong], Broken: o[broken] + sum.lost.Load(),
	}
	if served > 0 { // the warm-up cost processor time too
		whole := float64(served) * float64(l.Duration+l.Warmup) / float64(l.Duration)
		r.LoaderCPU = float64(cpu.Microseconds()) / whole
	}
	if sum.first != nil {
		r.FirstFault = sum.first.Error()
	}
	return r
}

// Errors is the number of requests that were not served properly.
func (r *Result) Errors() uint64 {
	n := r.Refused + r.Wrong + r.Broken
	if r.Load.MustHit {
		n += r.Misses
	}
	return n
}

// fault is not nil when a reply was false: a wrong value, or a miss where a hit was due. A server
// that refuses says the truth, so that is no fault.
func (r *Result) fault() error {
	switch {
	case r.Wrong > 0:
		return fmt.Errorf("%d wrong replies: %s", r.Wrong, r.FirstFault)
	case r.Load.MustHit && r.Misses > 0:
		return fmt.Errorf("%d gets of stored keys missed", r.Misses)
	case r.Hits+r.Misses+uint64(r.Set.Count) == 0:
		return fmt.Errorf("no request was served: %s", r.FirstFault)
	}
	return nil
}

func (r *Result) table(out io.Writer) {
	l := r.Load
	mode := fmt.Sprintf("closed loop, depth %d", l.Depth)
	if l.Rate > 0 {
		mode = fmt.Sprintf("open loop, %.0f requests/s", l.Rate)
	}
	fmt.Fprintf(out, "%s; %d connections, %d %% gets, %d-byte values, %d keys, %v\n",
		mode, l.Conns, l.Gets, l.ValueBytes, l.Keys, l.Duration)
	fmt.Fprintf(out, "%.0f op/s; %d errors (%d refused, %d wrong, %d broken), %d misses; generator %.1f µs CPU/op\n",
		r.OpsPerSecond, r.Errors(), r.Refused, r.Wrong, r.Broken, r.Misses, r.LoaderCPU)
	if r.FirstFault != "" {
		fmt.Fprintf(out, "first fault: %s\n", r.FirstFault)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tcount\tp50 µs\tp99 µs\tp99.9 µs\tmax µs\t")
	for _, row := range []struct {
		name string
		lat  Latency
	}{{"get", r.Get}, {"set", r.Set}} {
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t\n", row.name, row.lat.Count, row.lat.P50, row.lat.P99, row.lat.P999, row.lat.Max)
	}
	t.Flush()
}
