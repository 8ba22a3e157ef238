package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func testLoad(f *fake) Load {
	l := defaultLoad()
	l.Targets, l.Conns, l.Keys = []string{f.addr}, 4, 500
	l.Duration, l.Warmup, l.Preload = 200*time.Millisecond, 10*time.Millisecond, true
	return l
}

func mustRun(t *testing.T, l Load) Result {
	t.Helper()
	r, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestLoops runs every kind of loop against a good server: all gets hit, nothing is wrong, and gets
// and sets come in the share asked for.
func TestLoops(t *testing.T) {
	for name, change := range map[string]func(l *Load){
		"depth 1":      func(*Load) {},
		"depth 16":     func(l *Load) { l.Depth = 16 },
		"open":         func(l *Load) { l.Rate = 2000 },
		"large values": func(l *Load) { l.ValueBytes, l.Keys = 100_000, 8 },
		"tiny values":  func(l *Load) { l.ValueBytes = 3 },
		"no values":    func(l *Load) { l.ValueBytes = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, &fake{})
			l := testLoad(f)
			change(&l)
			r := mustRun(t, l)
			if r.Errors() != 0 || r.Misses != 0 || r.fault() != nil {
				t.Errorf("faults against a good server: %+v", r)
			}
			if r.Hits != uint64(r.Get.Count) || r.Get.Count == 0 {
				t.Errorf("hits %d, gets %d", r.Hits, r.Get.Count)
			}
			if share := float64(r.Get.Count) / float64(r.Get.Count+r.Set.Count); r.Get.Count > 1000 && (share < 0.85 || share > 0.95) {
				t.Errorf("%.2f of requests are gets, asked for 0.90", share)
			}
			if len(f.values) != l.Keys {
				t.Errorf("%d keys preloaded, want %d", len(f.values), l.Keys)
			}
		})
	}
}

// TestVerifies orders each kind of false reply: every one must be seen as what it is.
func TestVerifies(t *testing.T) {
	change := func(from, to string) func(line, reply string) string {
		return func(line, reply string) string {
			if strings.HasPrefix(line, "get ") {
				return strings.Replace(reply, from, to, 1)
			}
			return reply
		}
	}
	for name, c := range map[string]struct {
		spoil func(line, reply string) string
		count func(r *Result) uint64
		fault bool
	}{
		"another value":  {change("\r\nkaibench:0", "\r\nkaibench:9"), func(r *Result) uint64 { return r.Wrong }, true},
		"another key":    {change("VALUE kaibench:0", "VALUE kaibench:7"), func(r *Result) uint64 { return r.Wrong }, true},
		"another length": {change(" 0 100\r\nkai", " 0 99\r\nai"), func(r *Result) uint64 { return r.Wrong }, true},
		"no protocol":    {change("VALUE", "VALUES"), func(r *Result) uint64 { return r.Wrong }, true},
		"a miss": {func(line, reply string) string {
			if strings.HasPrefix(line, "get ") {
				return "END\r\n"
			}
			return reply
		}, func(r *Result) uint64 { return r.Misses }, true},
		"an error line": {func(line, reply string) string {
			if strings.HasPrefix(line, "get ") {
				return "SERVER_ERROR unavailable (not applied)\r\n"
			}
			return reply
		}, func(r *Result) uint64 { return r.Refused }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := mustRun(t, testLoad(newFake(t, &fake{spoil: c.spoil})))
			if c.count(&r) == 0 || r.Errors() == 0 {
				t.Errorf("not seen: %+v", r)
			}
			if (r.fault() != nil) != c.fault {
				t.Errorf("fault() = %v", r.fault())
			}
		})
	}
}

// TestNoCoordinatedOmission stalls the server once: an open loop must charge it for every request
// that came due meanwhile, not only for the one that was under way.
func TestNoCoordinatedOmission(t *testing.T) {
	const stall = 200 * time.Millisecond
	l := Load{Keys: 10}
	f := newFake(t, &fake{stall: func(n int) time.Duration {
		if n == l.Keys+100 { // the preload comes first
			return stall
		}
		return 0
	}})
	l = testLoad(f)
	l.Keys, l.Conns, l.Rate, l.Duration, l.Warmup = 10, 1, 1000, 500*time.Millisecond, 0
	r := mustRun(t, l)
	if r.Get.Max < float64(stall.Microseconds())*0.9 {
		t.Errorf("max %.0f µs: the stall of %v was not seen", r.Get.Max, stall)
	}
	// 200 of 500 requests came due during the stall; half of those waited for more than half of it.
	if r.Get.P50 > r.Get.Max/2 || r.Get.P99 < float64(stall.Microseconds())/2 {
		t.Errorf("p50 %.0f, p99 %.0f, max %.0f µs: not charged for requests that came due during the stall", r.Get.P50, r.Get.P99, r.Get.Max)
	}
}

func TestBrokenConnection(t *testing.T) {
	for _, rate := range []float64{0, 500} {
		f := newFake(t, &fake{spoil: func(line, reply string) string { return "nonsense\r\n" }})
		l := testLoad(f)
		l.Preload, l.Rate = false, rate
		r := mustRun(t, l)
		if r.Wrong == 0 || r.FirstFault == "" || r.fault() == nil {
			t.Errorf("rate %v: %+v", rate, r)
		}
	}
}

func TestCancel(t *testing.T) {
	f := newFake(t, &fake{})
	l := testLoad(f)
	l.Duration = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.Run(ctx); err == nil {
		t.Error("Run reported success though it was cancelled")
	}
}

// TestRunCommand checks output formats and exit codes.
func TestRunCommand(t *testing.T) {
	f := newFake(t, &fake{})
	args := []string{"run", "-target", f.addr, "-preload", "-keys", "100", "-conns", "2", "-duration", "50ms", "-warmup", "0"}
	var out, note bytes.Buffer
	if code := command(t.Context(), append(args, "-o", "json"), &out, &note); code != exitOK {
		t.Fatalf("exit %d: %s", code, &note)
	}
	var r Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.OpsPerSecond == 0 {
		t.Errorf("%v: %s", err, &out)
	}
	out.Reset()
	if code := command(t.Context(), args, &out, &note); code != exitOK || !strings.Contains(out.String(), "p99.9") {
		t.Errorf("exit %d: %s", code, &out)
	}
	for _, bad := range [][]string{{}, {"nothing"}, {"run", "-depth", "0"}, {"run", "-x"}, {"run", "-o", "xml"}, {"compare", "-systems", "redis"}} {
		if code := command(t.Context(), bad, &out, &note); code != exitUsage {
			t.Errorf("%q: exit %d, want %d", bad, code, exitUsage)
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	l := defaultLoad()
	l.Targets, l.Conns = []string{newFake(b, &fake{}).addr}, 1
	clients, err := l.dial(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	c := clients[0]
	defer c.close()
	reply := []byte("VALUE kaibench:00000042 0 100\r\nkaibench:00000042" + strings.Repeat("x", 83) + "\r\nEND\r\n")
	b.ReportAllocs()
	for b.Loop() {
		c.add(c.draw())
		c.out = c.out[:0]
		c.r, c.w = 0, copy(c.in, reply)
		if o, err := c.reply(request{key: 42}); o != hit || err != nil {
			b.Fatal(o, err)
		}
	}
}
