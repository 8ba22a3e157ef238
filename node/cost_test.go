package node

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"testing"
	"time"

	"kai/node/clock"
	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/telemetry"
)

// What it costs to keep a get of three replicas and to export its five spans, over OTLP to a receiver in this process, all on one processor: at most 100 us, so that
// one per cent of requests kept costs each a microsecond more than none (see TestCostOfFlights: half of one).
func TestCostOfSpans(t *testing.T) {
	if os.Getenv("KAI_COST") == "" {
		t.Skip("SKIPPED: KAI_COST=1 measures (make cost)")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	to := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer to.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "5")
	t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1000000") // nothing is dropped: all of it is paid for
	var spans telemetry.Spans
	stop, err := telemetry.Start(t.Context(), telemetry.Options{Service: "kai", Version: "test", Getenv: os.Getenv, Spans: &spans, IDs: flight.SpanIDs, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{}
	n.links = newLinks(n)
	recorder := flight.New(flight.Options{Slow: time.Second, Ratio: 1, Rate: 1 << 30})
	const limit, count, ms = 100 * time.Microsecond, 10_000, time.Millisecond
	keep := func() {
		f := &flight.Flight{Context: flight.NewContext(), Took: 2 * ms, Op: record.Get, Partition: 7, Status: record.Found, Class: flight.Sampled, Batch: 1, Steps: []flight.Step{
			{Node: "a", Kind: message.Read, Span: flight.Span(), Answer: flight.Answer{At: ms, Status: message.OK, Ballot: record.Ballot{Epoch: 1, Stamp: 9}}},
			{Node: "b", Kind: message.Read, Span: flight.Span(), Answer: flight.Answer{At: ms, Status: message.OK, Ballot: record.Ballot{Epoch: 1, Stamp: 9}, Digest: true}},
			{Node: "c", Kind: message.Read, Span: flight.Span()},
		}}
		recorder.Add(f, clock.Now(), 1)
		n.spans(t.Context(), f)
	}
	best, rounds := time.Hour, uint64(0)
	for ; rounds < 8 && (rounds < 2 || best > limit); rounds++ { // of several the best counts: others may use this machine
		begun := time.Now()
		for range count {
			keep()
		}
		for spans.Exported.Load() < 5*count*(rounds+1) && time.Since(begun) < time.Minute {
			time.Sleep(ms)
		}
		best = min(best, time.Since(begun)/count)
	}
	if err := stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := spans.Exported.Load(); got != 5*count*rounds {
		t.Fatalf("%d of %d spans were exported", got, 5*count*rounds)
	}
	if t.Logf("%v a request of five spans", best); best > limit {
		t.Errorf("a kept request costs %v, more than %v", best, limit)
	}
}
