package node

import (
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"kai/node/clock"
	"kai/node/flight"
	"kai/node/memcache"
	"kai/node/placement"
	"kai/node/record"
	"kai/node/ring"
)

// MetricsTable is what telemetry/METRICS.md says of Kai's own metrics.
func metricsTable() string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | stats | meaning |\n|---|---|---|---|---|\n")
	for _, m := range metrics {
		kind := map[any]string{counter: "counter", gauge: "gauge", histogram: "histogram"}[m.kind]
		stat := ""
		if m.stat != "" {
			stat = "`kai_" + m.stat + "`"
		}
		fmt.Fprintf(&b, "| `kai_%s` | %s | %s | %s | %s |\n", m.name, kind, strings.Join(m.labels, ", "), stat, m.help)
	}
	return b.String()
}

// The page and the code say the same: the test compares the whole table. When it fails, paste what it prints.
func TestMetricsPage(t *testing.T) {
	page, err := os.ReadFile("../telemetry/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "<!-- metrics: begin -->\n")
	table, _, closed := strings.Cut(rest, "<!-- metrics: end -->")
	if want := metricsTable(); !found || !closed || table != want {
		t.Errorf("the table in telemetry/METRICS.md differs from the code; it should be, between <!-- metrics: begin --> and <!-- metrics: end -->:\n%s", want)
	}
}

// Every number of stats is a metric, with its value, and the other way round.
func TestStatsAreMetrics(t *testing.T) {
	f := ring.Founding{ClusterID: "00000000000000000000000000000001", Generation: 1, Name: "kai", Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 16, VNodes: 16}
	n, d, end := benchNode(t, "file://"+t.TempDir(), f)
	defer end()
	d.backups.newest.Store(1)
	n.opts.Spans = func() (uint64, uint64, uint64) { return 3, 2, 1 }
	d.mover.Store(placement.NewMover(placement.Options{Self: n.identity.Node, Partitions: f.Partitions}))
	stats := map[string]bool{}
	n.measure(func(stat string, _ uint64) { stats[stat] = true })
	for _, m := range metrics {
		if m.stat != "" && !stats[m.stat] {
			t.Errorf("%s shows %s, which is not in stats", m.name, m.stat)
		}
		delete(stats, m.stat)
		if strings.HasSuffix(m.name, "_total") != (m.kind == counter) || !strings.HasSuffix(m.help, ".") {
			t.Errorf("%s: counters, and only they, end in _total, and each help is a sentence", m.name)
		}
	}
	for stat := range stats {
		t.Errorf("%s of stats is no metric", stat)
	}
	r := newRegistry(n)
	if problems, err := testutil.GatherAndLint(r); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	got := httptest.NewRecorder()
	source{n}.Metrics().ServeHTTP(got, httptest.NewRequest("GET", "/metrics", nil))
	body := got.Body.String()
	for _, m := range metrics {
		if len(m.labels) == 0 && m.kind != histogram && !strings.Contains(body, "\nkai_"+m.name+" ") || m.kind == histogram && len(m.labels) == 0 && !strings.Contains(body, "\nkai_"+m.name+"_count ") {
			t.Errorf("kai_%s is not served", m.name)
		}
	}
}

// The newest kept request of each bucket is its exemplar; what was run for another node is that node's.
func TestExemplars(t *testing.T) {
	n := &node{flights: flight.New(flight.Options{Slow: time.Millisecond})}
	add := func(took time.Duration, s record.Status, forwarded bool) string {
		f := &flight.Flight{Context: flight.NewContext(), Took: took, Op: record.Get, Status: s, Class: flight.Slow | flight.Diverged, Forwarded: forwarded}
		n.flights.Add(f, clock.Now(), 1)
		return f.Trace()
	}
	add(3*time.Millisecond, record.NotFound, false)
	newer, other, found := add(4*time.Millisecond, record.NotFound, false), add(30*time.Millisecond, record.NotFound, false), add(2*time.Second, record.Found, false)
	add(time.Minute, record.Found, true)
	got := map[string]bool{}
	for of, buckets := range (&collector{n: n}).examples() {
		for bucket, e := range buckets {
			got[fmt.Sprint(of, memcache.LatencyBounds[bucket], e.Labels["trace_id"], e.Value)] = true
		}
	}
	for _, want := range []string{"[get miss] 0.005" + newer + "0.004", "[get miss] 0.05" + other + "0.03", "[get ok] 2" + found + "2"} {
		if !got[want] || len(got) != 3 {
			t.Errorf("%s is not among %v", want, got)
		}
	}
}
