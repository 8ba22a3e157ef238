//go:build linux

package e2e

import (
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver takes spans over OTLP, as a collector does.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []exported
}

type exported struct {
	*v1.Span
	node string // of the span's request
	by   string // service.name and version
}

func receive(t *testing.T) *receiver {
	r := &receiver{}
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
		var batch collector.ExportTraceServiceRequest
		if err = errors.Join(err, proto.Unmarshal(content, &batch)); err != nil || req.URL.Path != "/v1/traces" {
			http.Error(w, fmt.Sprint(req.URL.Path, err), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range batch.ResourceSpans {
			by := ""
			for _, a := range rs.Resource.Attributes {
				if a.Key == "service.name" {
					by = a.Value.GetStringValue()
				}
			}
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					e := exported{Span: s, by: by}
					e.node = e.text("kai.node.id")
					r.spans = append(r.spans, e)
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	return r
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

// TestTraces: three nodes export their requests to a collector: a fast get, a set that one node asks another to run (one trace on both), a cas that fails, a get that
// finds replicas to differ, a set with one replica down, and a get without a quorum.
func TestTraces(t *testing.T) {
	to := receive(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
	c := start(t, 3, "KAI_PARTITIONS=64", "KAI_TRACE_RATIO=1", "KAI_REQUEST_TIMEOUT=1s")
	ids := map[string]string{}
	for _, n := range c.nodes {
		st, err := n.own()
		if err != nil {
			t.Fatal(err)
		}
		ids[st.ID] = n.name
	}
	find := func(what, op, outcome string, ok func(tree) bool) {
		t.Helper()
		eventually(t, slow, what, func() error {
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
	find("a fast get", "get", "found", func(x tree) bool {
		steps := x.phases["quorum.read"]
		if len(steps) != 2 || len(x.phases) != 1 || x.root.text("db.system.name") != "kai" || x.root.text("kai.key_hash") == "" || x.root.by != "kai" {
			return false
		}
		for _, s := range steps {
			if s.text("kai.status") != "ok" || ids[s.text("kai.peer.id")] == "" || s.text("network.peer.address") == "" || s.text("kai.stale") != "" || s.EndTimeUnixNano < s.StartTimeUnixNano {
				return false
			}
		}
		return true
	})
	find("a set that another node ran", "set", "stored", func(x tree) bool {
		if len(x.phases["forward"]) != 1 || x.root.text("kai.forwarded") != "" {
			return false
		}
		for _, y := range to.trees("set", "stored") {
			if string(y.root.ParentSpanId) == string(x.root.SpanId) && string(y.root.TraceId) == string(x.root.TraceId) && y.root.node != x.root.node && y.root.text("kai.forwarded") == "true" && len(y.phases["quorum.write"]) >= 3 {
				t.Logf("and its other part:\n%s", y)
				return true
			}
		}
		return false
	})
	if r, _ := a.do(command{verb: "cas", key: "traced-1", value: "w", token: 7}); r.word != "EXISTS" {
		t.Fatal(r)
	}
	find("a cas that fails", "cas", "exists", func(x tree) bool {
		return x.root.Status.GetCode() != v1.Status_STATUS_CODE_ERROR && len(x.phases) > 0
	})

	down := c.nodes[2]
	down.kill()
	time.Sleep(time.Second)
	for i := range 12 {
		_, _ = a.do(command{verb: "set", key: fmt.Sprint("traced-", i), value: "newer"})
	}
	find("a set with one replica down", "set", "stored", func(x tree) bool {
		for _, s := range x.phases["quorum.write"] {
			if ids[s.text("kai.peer.id")] == down.name && s.text("kai.status") == "unreachable" && s.Status.GetCode() == v1.Status_STATUS_CODE_ERROR {
				return len(x.phases["quorum.write"]) >= 3
			}
		}
		return false
	})
	c.nodes[1].kill()
	time.Sleep(time.Second)
	for range 3 {
		_, _ = a.do(command{verb: "get", key: "traced-1"})
	}
	find("a get without a quorum", "get", "unavailable", func(x tree) bool {
		return x.root.Status.GetCode() == v1.Status_STATUS_CODE_ERROR && x.root.text("error.type") == "unavailable" && len(x.phases["quorum.read"]) > 0
	})
}
