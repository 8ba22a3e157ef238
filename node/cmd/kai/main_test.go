package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"kai/node"
	"kai/node/console"
)

// command runs kai with args in an environment; run stands for the node.
func command(t *testing.T, environ map[string]string, run func(context.Context, node.Config, node.Options) error, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if environ == nil {
		environ = map[string]string{}
	}
	if environ["OTEL_SDK_DISABLED"] == "" {
		environ["OTEL_SDK_DISABLED"] = "true" // the SDK is one for the whole process
	}
	a := app{stdout: &out, stderr: &errs, environ: environ, version: "v1.2.3", run: run,
		interfaces: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("10.1.2.3")}, nil }}
	code = a.main(t.Context(), args)
	return code, out.String(), errs.String()
}

func TestNodeIsTheDefault(t *testing.T) {
	for _, args := range [][]string{nil, {"node"}, {"--hints"}, {"node", "--hints"}} {
		var got node.Config
		run := func(_ context.Context, c node.Config, o node.Options) error {
			got = c
			o.Logger.Info("serving")
			o.Ready()
			return nil
		}
		code, out, errs := command(t, map[string]string{"KAI_LISTEN": ":21211", "KAI_PEER_LISTEN": ":21212", "KAI_GOSSIP_LISTEN": ":21213"}, run, args...)
		if code != exitOK || got.Listen.String() != "0.0.0.0:21211" || got.Advertise != "10.1.2.3" || !strings.Contains(errs, `"msg":"serving"`) {
			t.Errorf("%v: %d %q %q %+v", args, code, out, errs, got)
		}
		hints := len(args) > 0 && args[len(args)-1] == "--hints"
		if strings.Contains(out, "| nc 127.0.0.1 21211") != hints {
			t.Errorf("%v: hints: %q", args, out)
		}
	}
}

func TestExitCodes(t *testing.T) {
	fails := func(context.Context, node.Config, node.Options) error { return errors.New("disk full") }
	closed := closedPort(t)
	for _, c := range []struct {
		args    []string
		environ map[string]string
		code    int
		stderr  string
	}{
		{[]string{"node"}, nil, exitFailure, "kai: disk full\n"},
		{[]string{"nod"}, nil, exitUsage, "node"},
		{[]string{"node", "extra"}, nil, exitUsage, "extra"},
		{[]string{"--nope"}, nil, exitUsage, "--nope"},
		{[]string{"status", "-o", "xml"}, nil, exitUsage, "table or json"},
		{[]string{"node"}, map[string]string{"KAI_QUORUM": "3:1:1"}, exitUsage, "KAI_QUORUM"},
		{[]string{"config"}, map[string]string{"KAI_QUORUM": "3:1:1"}, exitUsage, "KAI_QUORUM"},
		{[]string{"status"}, map[string]string{"KAI_QUORUM": "3:1:1"}, exitUsage, "KAI_QUORUM"},
		{[]string{"status", "--admin", closed}, nil, exitNotReady, "no node answers"},
		{[]string{"healthcheck"}, map[string]string{"KAI_ADMIN_LISTEN": closed}, exitNotReady, "no node answers"},
		{[]string{"version"}, nil, exitOK, ""},
		{[]string{"--version"}, nil, exitOK, ""},
		{[]string{"--help"}, nil, exitOK, ""},
		{[]string{"completion", "bash"}, nil, exitOK, ""},
	} {
		code, _, errs := command(t, c.environ, fails, c.args...)
		if code != c.code || !strings.Contains(errs, c.stderr) || (code == exitOK) != (errs == "") {
			t.Errorf("%v: %d %q, want %d %q", c.args, code, errs, c.code, c.stderr)
		}
	}
}

// TestAllFaultsTogether has faults of Kai's variables and of OpenTelemetry's, or of only the latter.
func TestAllFaultsTogether(t *testing.T) {
	for _, command := range []string{"config", "node"} {
		environ := map[string]string{"OTEL_SDK_DISABLED": "false", "KAI_QUORUM": "3:1:1", "OTEL_TRACES_EXPORTER": "zipkin", "OTEL_METRICS_EXPORTER": "statsd"}
		for _, faults := range []string{"3 faults", "2 faults"} {
			code, errs := refused(t, environ, command)
			for _, part := range []string{faults, "OTEL_TRACES_EXPORTER=\"zipkin\": is an exporter that this build does not know; set otlp or none\n", "statsd"} {
				if code != exitUsage || !strings.Contains(errs+"\n", part) {
					t.Errorf("%s: %d %q, want %q", command, code, errs, part)
				}
			}
			delete(environ, "KAI_QUORUM")
		}
	}
}

// refused runs a command that must not come as far as to run a node.
func refused(t *testing.T, environ map[string]string, args ...string) (code int, stderr string) {
	t.Helper()
	code, _, stderr = command(t, environ, func(context.Context, node.Config, node.Options) error {
		t.Error("a node runs")
		return nil
	}, args...)
	return code, stderr
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

type source struct {
	console.Source
	status  console.Status
	reasons []string
}

func (s source) Status() console.Status  { return s.status }
func (s source) Metrics() http.Handler   { return http.NotFoundHandler() }
func (s source) Ready() (bool, []string) { return len(s.reasons) == 0, s.reasons }

func TestStatusAndHealthcheck(t *testing.T) {
	s := source{reasons: []string{"waiting for 3 nodes, 2 are here"}, status: console.Status{
		NodeID: "aa", Version: "v1", Cluster: console.Cluster{Name: "kai", Founding: "founded", Quorum: "3:2:2", Partitions: 64, VNodes: 8},
		Nodes:           []console.Node{{ID: "aa", Alive: true, Zone: "z1", Partitions: 64}, {ID: "bb", Partitions: 64, PeerAddr: "10.0.0.2:2"}},
		UnderReplicated: console.UnderReplicated{Partitions: 64, Reason: "2 nodes, N is 3"},
		Store:           console.Store{Durability: "always", DiskBytes: 3 << 20, CacheHits: 1, CacheMisses: 1},
		Links:           []console.Link{{Node: "bb"}},
	}}
	server := httptest.NewServer(console.Handler(s))
	defer server.Close()
	environ := map[string]string{"KAI_ADMIN_LISTEN": server.Listener.Addr().String()}
	code, out, errs := command(t, environ, nil, "healthcheck")
	if code != exitNotReady || errs != "kai: not ready: waiting for 3 nodes, 2 are here\n" || out != "" {
		t.Error(code, out, errs)
	}
	code, out, _ = command(t, environ, nil, "status")
	for _, part := range []string{"not ready: waiting", "64 partitions: 2 nodes, N is 3", "3.0MiB on disk", "50.0 % hits", "bb    dead", "10.0.0.2:2    down"} {
		if code != exitOK || !strings.Contains(out, part) {
			t.Errorf("%d, lacks %q:\n%s", code, part, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("colours though stdout is no terminal")
	}
	code, out, _ = command(t, environ, nil, "status", "-o", "json")
	var got console.Status
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitOK || len(got.Nodes) != 2 || got.Ready {
		t.Error(code, err, out)
	}
}

func TestHealthcheckReady(t *testing.T) {
	server := httptest.NewServer(console.Handler(source{}))
	defer server.Close()
	for _, wait := range []string{"0s", "1m"} {
		if code, out, errs := command(t, nil, nil, "healthcheck", "--wait", wait, "--admin", server.Listener.Addr().String()); code != exitOK || out+errs != "" {
			t.Error(code, out, errs)
		}
	}
}

func TestConfigShowsWhereValuesComeFrom(t *testing.T) {
	environ := map[string]string{"KAI_GOSSIP_KEY": "MDEyMzQ1Njc4OWFiY2RlZg==", "KAI_PEER_LISTEN": ":2", "KAI_GOSSIP_LISTEN": ":3"}
	code, out, _ := command(t, environ, nil, "config", "-o", "json")
	var settings []node.Setting
	if err := json.Unmarshal([]byte(out), &settings); err != nil || code != exitOK {
		t.Fatal(code, err, out)
	}
	for _, s := range settings {
		switch s.Name {
		case "KAI_GOSSIP_KEY":
			if s.Value != "(secret)" || s.Source != "env" {
				t.Errorf("%+v", s)
			}
		case "KAI_ADVERTISE":
			if s.Value != "10.1.2.3" || s.Source != "derived" {
				t.Errorf("%+v", s)
			}
		}
	}
	code, table, _ := command(t, environ, nil, "config")
	if code != exitOK || strings.Contains(table+out, "MDEy") || !strings.Contains(table, "KAI_QUORUM") {
		t.Error(code, table)
	}
}

func TestColour(t *testing.T) {
	for _, c := range []struct {
		terminal bool
		environ  map[string]string
		want     bool
	}{{true, nil, true}, {false, nil, false}, {true, map[string]string{"NO_COLOR": "1"}, false}, {true, map[string]string{"TERM": "dumb"}, false}} {
		var out bytes.Buffer
		p := app{stdout: &out, terminal: c.terminal, environ: c.environ}.printer()
		p.table([][]string{{"A", "B"}, {p.bad("dead"), "x"}})
		if got := strings.Contains(out.String(), "\x1b[31mdead\x1b[0m  x"); got != c.want || !strings.HasPrefix(out.String(), "A     B\n") {
			t.Errorf("%+v: %q", c, out.String())
		}
	}
}

// The README lists the exit codes that there are.
func TestReadmeListsExitCodes(t *testing.T) {
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []int{exitOK, exitFailure, exitUsage, exitNotReady, 130} {
		if n := strconv.Itoa(code); !strings.Contains(string(readme), "| "+n+" |") || !strings.Contains(rootHelp, "\n  "+n+" ") {
			t.Errorf("exit code %s is missing in README.md or in the help", n)
		}
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	for _, c := range []struct {
		gap  time.Duration // between all signals
		sent []os.Signal
		code int // -1: never
	}{
		{0, []os.Signal{syscall.SIGINT}, -1},
		{10 * time.Millisecond, []os.Signal{syscall.SIGTERM, syscall.SIGTERM}, -1}, // one, told twice
		{time.Second, []os.Signal{syscall.SIGTERM, syscall.SIGTERM}, 143},
		{300 * time.Millisecond, []os.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGINT}, 130},
	} {
		signals := make(chan os.Signal, len(c.sent))
		for _, s := range c.sent {
			signals <- s
		}
		close(signals)
		cancelled, code, clock := false, -1, time.Unix(0, 0)
		now := func() time.Time { defer func() { clock = clock.Add(c.gap) }(); return clock }
		stopOnSignal(signals, now, func() { cancelled = true }, func(n int) { code = n })
		if !cancelled || code != c.code {
			t.Errorf("%+v: cancelled %v, exit code %d", c, cancelled, code)
		}
	}
}
