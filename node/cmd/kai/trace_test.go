package main

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"kai/node/console"
)

// tracer is a fake node that has kept one request.
type tracer struct {
	source
	asked string
	limit int
}

func (t *tracer) Requests(class string, limit int) ([]console.Request, error) {
	t.asked, t.limit = class, limit
	if class != "slow" {
		return nil, nil
	}
	at := func(s float64) *float64 { return &s }
	return []console.Request{{TraceID: "4bf92f", Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Took: 0.2, Command: "get", Outcome: "found", Classes: []string{"slow", "diverged"},
		Partition: 7, KeyHash: "00aa", Batch: 3, Steps: []console.RequestStep{
			{Node: "n1", Addr: "10.0.0.1:11212", Message: "read", Answered: at(0.1), Status: "ok", Queue: 0.00001, Store: 0.09},
			{Node: "n2", Message: "read", Digest: true, Answered: at(0.15), Status: "ok", Stale: true},
			{Node: "n3", Message: "read", Sent: 0.1},
		}}}, nil
}

func TestTrace(t *testing.T) {
	fake := &tracer{}
	server := httptest.NewServer(console.Handler(fake))
	defer server.Close()
	addr := strings.TrimPrefix(server.URL, "http://")
	code, out, errs := command(t, map[string]string{}, nil, "trace", "slow", "-n", "9", "--admin", addr)
	if code != 0 || fake.asked != "slow" || fake.limit != 9 {
		t.Fatalf("exit code %d, asked for %d %s: %s", code, fake.limit, fake.asked, errs)
	}
	for _, want := range []string{
		"get: found after 200ms with 2 others  (slow, diverged)", "trace 4bf92f, partition 7, key #00aa",
		"read           n1    10.0.0.1:11212  " + strings.Repeat("█", 21) + strings.Repeat(" ", 19) + "  ok         10µs   90ms",
		"read (ballot)  n2                    " + strings.Repeat("█", 30) + strings.Repeat(" ", 10) + "  ok, stale",
		"read           n3                    " + strings.Repeat(" ", 20) + strings.Repeat("·", 20) + "  none yet",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if code, out, _ = command(t, map[string]string{}, nil, "trace", "failed", "--admin", addr); code != 0 || !strings.Contains(out, "none since") || fake.limit != 5 {
		t.Errorf("exit code %d, %q", code, out)
	}
	if code, out, _ = command(t, map[string]string{}, nil, "trace", "failed", "--admin", addr, "-o", "json"); code != 0 || strings.TrimSpace(out) != "[]" {
		t.Errorf("exit code %d, %q", code, out)
	}
	if code, _, errs = command(t, map[string]string{}, nil, "trace", "slow", "-n", "0", "--admin", addr); code == 0 || !strings.Contains(errs, "from 1 to 1000") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	if code, _, _ = command(t, map[string]string{}, nil, "trace"); code != exitUsage {
		t.Errorf("exit code %d without a class", code)
	}
}
