package console

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

type fake struct {
	status  Status
	reasons []string
}

func (f *fake) Status() Status          { return f.status }
func (f *fake) Ready() (bool, []string) { return len(f.reasons) == 0, f.reasons }
func (f *fake) Settings() []Setting {
	return []Setting{{Name: "KAI_ZONE", Value: "a", Source: "env", Meaning: "failure domain"}}
}
func (f *fake) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "kai_up 1\n") })
}

func example() Status {
	return Status{
		NodeID: "0123456789abcdef", Version: "v1", Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Cluster: Cluster{ID: "c1", Name: "kai", Founding: "founded", Quorum: "3:2:2", Partitions: 1024, VNodes: 128},
		Nodes: []Node{
			{ID: "0123456789abcdef", Zone: "a", Alive: true, Version: "v1", PeerAddr: "10.0.0.1:11212", Boot: 3, Partitions: 1024, Favoured: 400},
			{ID: "fedcba9876543210", Slot: 1, Zone: "<b>", Version: "v1", PeerAddr: "10.0.0.2:11212", Boot: 1, Partitions: 1024, Favoured: 624},
		},
		UnderReplicated: UnderReplicated{1024, "2 nodes, N is 3"},
		Store:           Store{Durability: "always", DiskBytes: 4096, CacheBytes: 1 << 20, CacheHits: 9, CacheMisses: 1},
		Links:           []Link{{Node: "fedcba9876543210", Addr: "10.0.0.2:11212", Detail: "connection refused"}},
	}
}

func get(t *testing.T, h http.Handler, path, accept string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHealth(t *testing.T) {
	source := &fake{}
	h := Handler(source)
	if w := get(t, h, "/readyz", ""); w.Code != 200 || w.Body.String() != "ready\n" {
		t.Error(w.Code, w.Body)
	}
	source.reasons = []string{"not founded: 2 of 3 nodes", "draining"}
	if w := get(t, h, "/livez", ""); w.Code != 200 {
		t.Error("a node that is not ready is alive all the same", w.Code)
	}
	if w := get(t, h, "/readyz", "*/*"); w.Code != 503 || w.Body.String() != "not ready\nnot founded: 2 of 3 nodes\ndraining\n" {
		t.Error(w.Code, w.Body)
	}
	var r Readiness
	if w := get(t, h, "/readyz", "application/json"); w.Code != 503 || json.Unmarshal(w.Body.Bytes(), &r) != nil || r.Ready || len(r.Reasons) != 2 {
		t.Error(w.Code, w.Body)
	}
}

func TestAnswers(t *testing.T) {
	h := Handler(&fake{status: example(), reasons: []string{"draining"}})
	for path, part := range map[string]string{
		"/api/status": `"reasons": [`, "/api/config": `"KAI_ZONE"`, "/metrics": "kai_up 1\n", "/": "<!doctype html>",
		"/console.js": "refresh", "/style.css": "prefers-color-scheme", "/icon.svg": "<svg",
	} {
		w := get(t, h, path, "")
		if w.Code != 200 || !strings.Contains(w.Body.String(), part) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Content-Type"} {
			if w.Header().Get(name) == "" {
				t.Errorf("%s: no %s", path, name)
			}
		}
	}
	if w := get(t, h, "/nowhere", ""); w.Code != 404 {
		t.Error(w.Code)
	}
	r := httptest.NewRequest(http.MethodPost, "/api/status", nil)
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != 405 {
		t.Error("POST:", w.Code)
	}
}

// The policy forbids inline scripts and styles and foreign hosts; the page must live with that.
func TestPageKeepsItsPolicy(t *testing.T) {
	for _, name := range []string{"index.html", "console.js", "style.css"} {
		b, err := pageFiles.ReadFile("page/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"http://", "https://", " style=", "<style", "onclick", "innerHTML", "eval("} {
			if strings.Contains(string(b), bad) {
				t.Errorf("%s contains %q", name, bad)
			}
		}
	}
}

func serve(t *testing.T, source Source) (addr string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := New(Options{Listener: l, Source: source, Logger: slog.New(slog.DiscardHandler)})
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = func() error { cancel(); return <-done }
	return l.Addr().String(), stop
}

func TestRunAndClient(t *testing.T) {
	source := &fake{status: example(), reasons: []string{"draining"}}
	addr, stop := serve(t, source)
	client := Client{Addr: addr}
	got, err := client.Status(t.Context())
	want := example()
	want.Reasons = source.reasons
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	ready, err := client.Ready(t.Context())
	if err != nil || ready.Ready || len(ready.Reasons) != 1 {
		t.Errorf("%+v, %v", ready, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := client.Ready(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}

func TestRunReportsListenerFailure(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := New(Options{Listener: l, Source: &fake{}, Logger: slog.New(slog.DiscardHandler)})
	if err := s.Run(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestClientOnStrangers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"another service": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) },
		"not JSON":        func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
	} {
		server := httptest.NewServer(h)
		_, err := Client{Addr: server.Listener.Addr().String()}.Status(t.Context())
		if err == nil || errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
		server.Close()
	}
}
