package node

import (
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"kai/node/placement"
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
		if len(m.labels) == 0 && !strings.Contains(body, "\nkai_"+m.name+" ") {
			t.Errorf("kai_%s is not served", m.name)
		}
	}
}
