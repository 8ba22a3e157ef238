//go:build linux

package e2e

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	metricscollector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// receiver takes spans and metrics over OTLP, as a collector does: by HTTP, and by gRPC.
type receiver struct {
	*httptest.Server
	grpc    string // its URL
	mu      sync.Mutex
	spans   []exported
	metrics map[string]map[string]*metrics.Metric // by service.instance.id and name
}

type exported struct {
	*v1.Span
	node     string            // of the span's request
	resource map[string]string // of who exported it
}

func receive(t *testing.T) *receiver {
	r := &receiver{metrics: map[string]map[string]*metrics.Metric{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var body io.Reader = req.Body
		if req.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		content, err := io.ReadAll(body)
		switch req.URL.Path {
		case "/v1/traces":
			var batch collector.ExportTraceServiceRequest
			if err = errors.Join(err, proto.Unmarshal(content, &batch)); err == nil {
				r.take(&batch)
			}
		case "/v1/metrics":
			var batch metricscollector.ExportMetricsServiceRequest
			if err = errors.Join(err, proto.Unmarshal(content, &batch)); err == nil {
				r.takeMetrics(&batch)
			}
		default:
			err = errors.New("no such path")
		}
		if err != nil {
			http.Error(w, fmt.Sprint(req.URL.Path, err), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, grpcTraces{r: r})
	metricscollector.RegisterMetricsServiceServer(server, grpcMetrics{r: r})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(ln) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	r.grpc = "http://" + ln.Addr().String()
	return r
}

type grpcTraces struct {
	collector.UnimplementedTraceServiceServer
	r *receiver
}

// Export implements the service.
func (g grpcTraces) Export(_ context.Context, batch *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	g.r.take(batch)
	return &collector.ExportTraceServiceResponse{}, nil
}

type grpcMetrics struct {
	metricscollector.UnimplementedMetricsServiceServer
	r *receiver
}

// Export implements the service.
func (g grpcMetrics) Export(_ context.Context, batch *metricscollector.ExportMetricsServiceRequest) (*metricscollector.ExportMetricsServiceResponse, error) {
	g.r.takeMetrics(batch)
	return &metricscollector.ExportMetricsServiceResponse{}, nil
}

func described(r *resource.Resource) map[string]string {
	all := map[string]string{}
	for _, a := range r.GetAttributes() {
		all[a.Key] = a.Value.GetStringValue()
	}
	return all
}

func (r *receiver) take(batch *collector.ExportTraceServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range batch.ResourceSpans {
		of := described(rs.Resource)
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				e := exported{Span: s, resource: of}
				e.node = e.text("kai.node.id")
				r.spans = append(r.spans, e)
			}
		}
	}
}

func (r *receiver) takeMetrics(batch *metricscollector.ExportMetricsServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rm := range batch.ResourceMetrics {
		by := described(rm.Resource)["service.instance.id"]
		if r.metrics[by] == nil {
			r.metrics[by] = map[string]*metrics.Metric{}
		}
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				r.metrics[by][m.Name] = m
			}
		}
	}
}

// named are the spans of that name.
func (r *receiver) named(name string) (all []exported) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if s.Name == name {
			all = append(all, s)
		}
	}
	return all
}

// nodes are the instances that have a part in a trace, by id; an error if a span of it hangs below one that is not there.
func (r *receiver) nodes(trace []byte) (map[string]bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids, there := map[string]bool{}, map[string]bool{"": true}
	for _, s := range r.spans {
		if string(s.TraceId) == string(trace) {
			ids[s.resource["service.instance.id"]], there[string(s.SpanId)] = true, true
		}
	}
	for _, s := range r.spans {
		if string(s.TraceId) == string(trace) && !there[string(s.ParentSpanId)] {
			return ids, fmt.Errorf("%s hangs below %x, which is not there", s.Name, s.ParentSpanId)
		}
	}
	return ids, nil
}

// text is an attribute of a span.
func (e exported) text(key string) string {
	for _, a := range e.Attributes {
		if a.Key == key {
			if a.Value.GetBoolValue() {
				return "true"
			}
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// tree is one kept request: its root, and what is below it.
type tree struct {
	root   exported
	phases map[string][]exported // steps, by the name of their phase
}

// trees of requests that find their steps, by an operation and its outcome.
func (r *receiver) trees(op, outcome string) (all []tree) {
	r.mu.Lock()
	defer r.mu.Unlock()
	children := map[string][]exported{}
	for _, s := range r.spans {
		children[string(s.ParentSpanId)] = append(children[string(s.ParentSpanId)], s)
	}
	for _, s := range r.spans {
		if s.Kind != v1.Span_SPAN_KIND_SERVER || s.Name != op || s.text("kai.outcome") != outcome {
			continue
		}
		t := tree{s, map[string][]exported{}}
		for _, phase := range children[string(s.SpanId)] {
			if phase.Kind == v1.Span_SPAN_KIND_INTERNAL {
				t.phases[phase.Name] = append(t.phases[phase.Name], children[string(phase.SpanId)]...)
			}
		}
		all = append(all, t)
	}
	return all
}

func (t tree) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s by %s", hex.EncodeToString(t.root.TraceId), t.root.Name, t.root.text("kai.outcome"), t.root.node)
	for phase, steps := range t.phases {
		fmt.Fprintf(&b, "\n  %s", phase)
		for _, s := range steps {
			fmt.Fprintf(&b, "\n    %s to %s: %s, %v", s.Name, s.text("kai.peer.id"), s.text("kai.status"), time.Duration(s.EndTimeUnixNano-s.StartTimeUnixNano))
		}
	}
	return b.String()
}

// TestTraces: three nodes export their requests to a collector: a fast get, a set that one node asks another to run (one trace on all three), a cas that fails, a set
// with one replica down and the hint that comes of it, a get that finds replicas to differ, and requests that time out. So they do with what they do by themselves: a move,
// a snapshot. Their metrics go there as well.
func TestTraces(t *testing.T) {
	to := receive(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", to.grpc)
	t.Setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
	url := "file://" + t.TempDir()
	c := start(t, 3, "KAI_PARTITIONS=64", "KAI_TRACE_RATIO=1", "KAI_REQUEST_TIMEOUT=1s", "KAI_ZONE=z1", "KAI_BACKUP_URL="+url, "KAI_BACKUP_INTERVAL=0")
	ids := map[string]string{}
	for _, n := range c.nodes {
		st, err := n.own()
		if err != nil {
			t.Fatal(err)
		}
		ids[st.ID] = n.name
	}
	again := func() {}
	find := func(what, op, outcome string, ok func(tree) bool) {
		t.Helper()
		eventually(t, slow, what, func() error {
			again()
			all := to.trees(op, outcome)
			for _, x := range all {
				if ok(x) {
					t.Logf("%s:\n%s", what, x)
					return nil
				}
			}
			if len(all) > 0 {
				return fmt.Errorf("not among %d traces of %s %s, such as\n%s", len(all), op, outcome, all[len(all)-1])
			}
			return fmt.Errorf("no trace of %s %s among %d spans", op, outcome, len(to.spans))
		})
	}
	a := c.client(0)
	for i := range 12 { // some of these keys' coordinators are other nodes
		key := fmt.Sprint("traced-", i)
		if r, _ := a.do(command{verb: "set", key: key, value: "v"}); r.word != "STORED" {
			t.Fatal(r)
		}
		if r, _ := a.do(command{verb: "get", key: key}); r.value != "v" {
			t.Fatal(r)
		}
	}
	// On a busy machine, and right after a set, all of those may have been hedged, or have found replicas to differ.
	again = func() { a.do(command{verb: "get", key: "traced-0"}) }
	find("a fast get", "get", "found", func(x tree) bool {
		steps := x.phases["quorum.read"]
		if len(steps) != 2 || len(x.phases) != 1 || x.root.text("db.system.name") != "kai" || x.root.text("kai.key_hash") == "" || x.root.resource["service.name"] != "kai" || x.root.resource["service.instance.id"] != x.root.node || x.root.resource["kai.zone"] != "z1" {
			return false
		}
		for _, s := range steps {
			if s.text("kai.status") != "ok" || ids[s.text("kai.peer.id")] == "" || s.text("network.peer.address") == "" || s.text("kai.stale") != "" || s.EndTimeUnixNano < s.StartTimeUnixNano {
				return false
			}
		}
		return true
	})
	// And a node serves as soon as a quorum is linked: the third may have had no part in any of those.
	again = func() {
		for i := range 12 {
			a.do(command{verb: "set", key: fmt.Sprint("traced-", i), value: "v"})
		}
	}
	find("a set in which all three have a part", "set", "stored", func(x tree) bool {
		nodes, err := to.nodes(x.root.TraceId)
		return err == nil && len(nodes) == 3
	})
	find("a set that another node ran", "set", "stored", func(x tree) bool {
		if len(x.phases["forward"]) != 1 || x.root.text("kai.forwarded") != "" {
			return false
		}
		for _, y := range to.trees("set", "stored") {
			if string(y.root.ParentSpanId) == string(x.phases["forward"][0].SpanId) && string(y.root.TraceId) == string(x.root.TraceId) && y.root.node != x.root.node && y.root.text("kai.forwarded") == "true" && len(y.phases["quorum.write"]) >= 3 {
				t.Logf("and its other part:\n%s", y)
				return true
			}
		}
		return false
	})
	again = func() {}
	if r, _ := a.do(command{verb: "cas", key: "traced-1", value: "w", token: 7}); r.word != "EXISTS" {
		t.Fatal(r)
	}
	find("a cas that fails", "cas", "exists", func(x tree) bool {
		return x.root.Status.GetCode() != v1.Status_STATUS_CODE_ERROR && len(x.phases) > 0
	})

	// What all nodes do together is one trace.
	together := func(what, name string, more int) {
		t.Helper()
		eventually(t, slow, what, func() error {
			for _, s := range to.named(name) {
				if nodes, err := to.nodes(s.TraceId); err == nil && len(nodes) >= more && s.EndTimeUnixNano >= s.StartTimeUnixNano {
					t.Logf("%s: %x, %d nodes", what, s.TraceId, len(nodes))
					return nil
				}
			}
			return fmt.Errorf("%d spans %s, none with a trace of %d nodes", len(to.named(name)), name, more)
		})
	}
	c.mustKai("backup", "create", "--url", url, "--name", "one", "--admin", c.nodes[0].admin())
	together("a snapshot", "snapshot.partition", 3)
	named := false
	for _, s := range to.named("snapshot") {
		named = named || strings.Contains(c.nodes[0].linesWith(t, "snapshot complete"), `"trace_id":"`+hex.EncodeToString(s.TraceId)+`"`)
	}
	if !named {
		t.Errorf("no snapshot's trace is in %s", c.nodes[0].linesWith(t, "snapshot complete"))
	}
	eventually(t, slow, "metrics", func() error {
		to.mu.Lock()
		defer to.mu.Unlock()
		for id, name := range ids {
			have := to.metrics[id]
			gets, took := have["kai_gets_total"].GetSum(), have["kai_command_duration_seconds"].GetHistogram()
			if gets == nil || !gets.IsMonotonic || name == "a" && (gets.DataPoints[0].GetAsDouble() < 12 || took == nil || len(took.DataPoints[0].BucketCounts) < 10) {
				return fmt.Errorf("%s has sent %d metrics; gets %v", name, len(have), gets)
			}
		}
		for _, p := range to.metrics[a0(ids)]["kai_command_duration_seconds"].GetHistogram().DataPoints {
			for _, e := range p.Exemplars {
				if len(e.TraceId) == 16 && len(e.SpanId) == 8 {
					return nil
				}
			}
		}
		return errors.New("no exemplar names a trace")
	})
	body, err := fetch("http://"+c.nodes[0].admin()+"/metrics", "application/openmetrics-text; version=1.0.0")
	if err != nil || !strings.Contains(body, `trace_id="`) {
		t.Errorf("%v; OpenMetrics without exemplars, in %d bytes", err, len(body))
	}

	down := c.nodes[2]
	down.kill()
	time.Sleep(time.Second)
	for i := range 3000 {
		_, _ = a.do(command{verb: "set", key: fmt.Sprint("traced-", i), value: "newer"})
	}
	find("a set with one replica down", "set", "stored", func(x tree) bool {
		for _, s := range x.phases["quorum.write"] {
			if ids[s.text("kai.peer.id")] == down.name && s.text("kai.status") == "unreachable" && s.Status.GetCode() == v1.Status_STATUS_CODE_ERROR {
				return len(x.phases["quorum.write"]) >= 3 && strings.Contains(x.root.list("kai.kept_for"), "hinted")
			}
		}
		return false
	})
	if err := down.start(); err != nil {
		t.Fatal(err)
	}
	if err := down.awaitReady(slow); err != nil {
		t.Fatal(err)
	}
	back := c.client(2)
	for i := 2999; i > 2000; i-- {
		_, _ = back.do(command{verb: "get", key: fmt.Sprint("traced-", i)})
	}
	find("a get that found replicas to differ", "get", "found", func(x tree) bool {
		stale := 0
		for _, s := range x.phases["quorum.read"] {
			if s.text("kai.stale") == "true" && ids[s.text("kai.peer.id")] == down.name {
				stale++
			}
		}
		return stale > 0 && strings.Contains(x.root.list("kai.kept_for"), "diverged")
	})
	eventually(t, slow, "a hint is linked to the set it comes of", func() error {
		sets := map[string]bool{}
		for _, s := range to.named("set") {
			sets[string(s.SpanId)] = true
		}
		all := to.named("hints")
		for _, h := range all {
			for _, l := range h.Links {
				if sets[string(l.SpanId)] && ids[h.text("kai.peer.id")] == down.name {
					return nil
				}
			}
		}
		return fmt.Errorf("%d hand-overs of hints", len(all))
	})

	c.join()
	together("a move", "pull", 2)

	c.nodes[1].pause()
	down.pause()
	for i := range 3 {
		_, _ = a.do(command{verb: "get", key: fmt.Sprint("traced-", i)})
		_, _ = a.do(command{verb: "set", key: fmt.Sprint("traced-", i), value: "late"})
	}
	late := func(x tree, phase string) bool {
		waited := 0
		for _, s := range x.phases[phase] {
			if st := s.text("kai.status"); st == "timed_out" || st == "none yet" {
				waited++
			}
		}
		return x.root.Status.GetCode() == v1.Status_STATUS_CODE_ERROR && x.root.EndTimeUnixNano-x.root.StartTimeUnixNano >= uint64(900*time.Millisecond) && waited > 0
	}
	find("a get that timed out", "get", "unavailable", func(x tree) bool { return x.root.text("error.type") == "unavailable" && late(x, "quorum.read") })
	c.nodes[1].resume()
	down.resume()
	// What clients store under which name is nobody's business.
	to.mu.Lock()
	for _, s := range to.spans {
		if text := s.String(); strings.Contains(text, "traced-") || strings.Contains(text, "newer") {
			t.Fatalf("a key or a value is in a span: %s", text)
		}
	}
	to.mu.Unlock()
	for _, n := range c.nodes {
		if line := n.linesWith(t, "traced-"); line != "" {
			t.Errorf("a key is in a log: %s", line)
		}
	}
}

// linesWith are the lines of the node's log that contain text.
func (n *node) linesWith(t *testing.T, text string) (lines string) {
	t.Helper()
	all, err := os.ReadFile(n.log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		if strings.Contains(line, text) {
			lines += line
		}
	}
	return lines
}

// TestTracesByGRPC: spans by gRPC, metrics by HTTP.
func TestTracesByGRPC(t *testing.T) {
	to := receive(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", to.grpc)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	c := start(t, 1, "KAI_TRACE_RATIO=1")
	if r, _ := c.client(0).do(command{verb: "set", key: "k", value: "v"}); r.word != "STORED" {
		t.Fatal(r)
	}
	eventually(t, slow, "a span and a metric", func() error {
		spans := to.named("set")
		to.mu.Lock()
		defer to.mu.Unlock()
		if len(spans) == 0 || len(to.metrics) != 1 {
			return fmt.Errorf("%d spans, metrics of %d nodes", len(spans), len(to.metrics))
		}
		if r := spans[0].resource; r["deployment.environment.name"] != "test" || r["service.instance.id"] == "" || r["host.name"] == "" || r["kai.cluster"] != "e2e" {
			return fmt.Errorf("described as %v", r)
		}
		return nil
	})
}

// a0 is the id of node a.
func a0(ids map[string]string) string {
	for id, name := range ids {
		if name == "a" {
			return id
		}
	}
	return ""
}

// list is an attribute of a span that has several values.
func (e exported) list(key string) (all string) {
	for _, a := range e.Attributes {
		if a.Key == key {
			for _, v := range a.Value.GetArrayValue().GetValues() {
				all += " " + v.GetStringValue()
			}
		}
	}
	return all
}

func fetch(url, accept string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", accept)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

// A collector that takes connections and never answers keeps no node from stopping, and its stop is a clean one.
func TestStopsWithoutItsCollector(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel only
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+ln.Addr().String())
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
	c := start(t, 1, "KAI_TRACE_RATIO=1")
	if r, _ := c.client(0).do(command{verb: "set", key: "k", value: "v"}); r.word != "STORED" {
		t.Fatal(r)
	}
	time.Sleep(300 * time.Millisecond)
	if err := c.nodes[0].stop(); err != nil {
		t.Error(err)
	}
}
