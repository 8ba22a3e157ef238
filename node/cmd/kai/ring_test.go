package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"kai/node/console"
)

// cluster is a fake node that can do all; Ring makes one step.
type cluster struct {
	source
	mu     sync.Mutex
	ring   console.Ring
	plan   console.Plan
	asked  console.PlanQuery
	drain  console.Drain
	cannot error
	lost   console.Recovery
	step   func(*cluster)
	turn   int
}

func (c *cluster) Ring() console.Ring {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn++
	if c.step != nil {
		c.step(c)
	}
	return c.ring
}

func (c *cluster) Drain() console.Drain {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drain
}

func (c *cluster) Plan(q console.PlanQuery) (console.Plan, error) {
	c.asked = q
	return c.plan, c.cannot
}

func (c *cluster) SetDrain(on bool) error {
	if c.cannot == nil {
		c.drain.Asked = on
	}
	return c.cannot
}

func (c *cluster) Lost() console.Recovery { return c.lost }
func (c *cluster) Recover() (console.Recovery, error) {
	for i := range c.lost.Partitions {
		if l := &c.lost.Partitions[i]; l.Refused == "" {
			l.Recovered, l.Generation = true, l.Generation+1
		}
	}
	return c.lost, nil
}

func (c *cluster) serve(t *testing.T) (admin string) {
	server := httptest.NewServer(console.Handler(c))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func exampleRing() console.Ring {
	seen := time.Now().Add(-34 * time.Second)
	until := seen.Add(2 * time.Minute)
	return console.Ring{
		NodeID: "0123456789abcdef", Mean: 192, Cluster: console.Cluster{ID: "c1", Name: "kai", Partitions: 256, Quorum: "3:2:2"},
		Nodes: []console.RingNode{
			{ID: "0123456789abcdef", Zone: "z1", Weight: 1, State: console.NodeAlive, Partitions: 192, Share: 1, Favoured: 90, Out: 12, PeerAddr: "10.0.0.1:2"},
			{ID: "01234567ffffffff", Zone: "z2", Slot: 1, Weight: 2.5, State: console.NodeDraining, Partitions: 96, Out: 96, PeerAddr: "10.0.0.2:2"},
			{ID: "fedcba9876543210", Slot: 2, Weight: 1, State: console.NodeDead, Partitions: 40, Share: 0.2, LastSeen: &seen, ReplacedAt: &until},
		},
		Transfer: console.Transfer{Moving: 8, Planned: 100, AtOnce: 8, LeftReplicas: 108, LeftBytes: 64 << 20, SecondsLeft: 41.2, BytesPerSecond: 3 << 20, ReplicasPerSecond: 2.5, Silent: 1},
	}
}

func TestRing(t *testing.T) {
	c := &cluster{ring: exampleRing()}
	admin := c.serve(t)
	code, out, errs := command(t, nil, nil, "ring", "--admin", admin)
	for _, part := range []string{
		"012345678*  alive", "01234567f   draining", "dead for 34s, counts until", "100.0 %", "████████████████ ", "███▎░", "   2.5", " 12  10.0.0.1:2", " 96  10.0.0.2:2",
		"8 partitions, 100 wait (8 at once); 108 replicas to go, about 64.0MiB", "3.0MiB/s, 2.5 replicas/s (1 node did not tell its own)", "about 42s",
	} {
		if code != exitOK || errs != "" || !strings.Contains(out, part) {
			t.Errorf("%d %s, lacks %q:\n%s", code, errs, part, out)
		}
	}
	if strings.Contains(out, "\x1b") || strings.Contains(out, "lost") {
		t.Errorf("%q", out)
	}
	c.ring.Lost, c.ring.Recoveries = 3, console.Recoveries{Generation: 2, Partitions: 7}
	c.ring.Transfer = console.Transfer{}
	_, out, _ = command(t, nil, nil, "ring", "--admin", admin)
	for _, part := range []string{"moving            no partition", "3 partitions have no quorum for good: kai recover", "2; 7 partitions were recovered"} {
		if !strings.Contains(out, part) {
			t.Errorf("lacks %q:\n%s", part, out)
		}
	}
	for _, args := range [][]string{{"--json"}, {"-o", "json"}} {
		code, out, _ = command(t, nil, nil, append([]string{"ring", "--admin", admin}, args...)...)
		var got console.Ring
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitOK || len(got.Nodes) != 3 {
			t.Error(code, err, out)
		}
	}
	if code, _, errs := command(t, nil, nil, "ring", "--admin", closedPort(t)); code != exitNotReady || !strings.Contains(errs, "no node answers") {
		t.Error(code, errs)
	}
}

// The watch goes on until its context ends: in place on a terminal, a line a second elsewhere.
func TestRingWatch(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		c := &cluster{ring: exampleRing()}
		c.step = func(c *cluster) {
			if c.turn == 2 {
				c.ring.Transfer.Moving = 5
				time.AfterFunc(300*time.Millisecond, cancel)
			}
		}
		var out, errs bytes.Buffer
		a := app{stdout: &out, stderr: &errs, environ: map[string]string{}, version: "v1", terminal: terminal}
		code := a.main(ctx, []string{"ring", "--watch", "--admin", c.serve(t)})
		text := out.String()
		if code != exitOK || errs.Len() > 0 || !strings.Contains(text, "8 partitions") || !strings.Contains(text, "5 partitions") {
			t.Errorf("%d %s %q", code, errs.String(), text)
		}
		if lines := strings.Count(text, "\n"); !terminal && (lines != 2 || strings.Contains(text, "\x1b")) {
			t.Errorf("%d lines: %q", lines, text)
		}
		if terminal && (strings.Count(text, "\x1b[2J") != 1 || strings.Count(text, "\x1b[H") != 2 || !strings.Contains(text, "PEER ADDRESS\x1b[K\n")) {
			t.Errorf("%q", text)
		}
	}
}

func TestRingPlan(t *testing.T) {
	c := &cluster{plan: console.Plan{Partitions: 170, Replicas: 206, Bytes: 50 << 20, AtOnce: 8, Seconds: 9.5, Nodes: []console.PlanNode{
		{ID: "0123456789abcdef", Fate: console.PlanStays, Weight: 1, Before: 256, After: 153, Out: 103, FavouredBefore: 89, FavouredAfter: 75, Addr: "10.0.0.1:2"},
		{ID: "fedcba9876543210", Fate: console.PlanLeaves, Weight: 1, Before: 256, Out: 256},
		{ID: "new node 1", Fate: console.PlanComes, Weight: 2, Zone: "z1", After: 306, In: 306},
	}}}
	admin := c.serve(t)
	code, out, errs := command(t, nil, nil, "ring", "plan", "--admin", admin, "--without", "fed", "--with", "1", "--zone", "z1", "--weight", "2")
	for _, part := range []string{"01234567", "   256    153", "fedcba98    leaves", "new node 1  new", "89 → 75", "170 partitions would move, at most 8 at once: 206 replicas to transfer, about 50.0MiB; at the rate of now about 10s"} {
		if code != exitOK || errs != "" || !strings.Contains(out, part) {
			t.Errorf("%d %s, lacks %q:\n%s", code, errs, part, out)
		}
	}
	if q := c.asked; len(q.Without) != 1 || q.Without[0] != "fed" || q.With != 1 || len(q.Zones) != 1 || q.Weight != 2 {
		t.Errorf("%+v", q)
	}
	c.plan.Impossible = "2 nodes would be left"
	if _, out, _ := command(t, nil, nil, "ring", "plan", "--admin", admin); !strings.Contains(out, "nothing would move: 2 nodes would be left") {
		t.Error(out)
	}
	c.cannot = errors.New(`no node is called "x"`)
	if code, _, errs := command(t, nil, nil, "ring", "plan", "--admin", admin, "--without", "x"); code != exitFailure || !strings.Contains(errs, `refused: no node is called "x"`) {
		t.Error(code, errs)
	}
	for _, args := range [][]string{{"--with", "-1"}, {"--zone", "z1"}, {"--with", "x"}} {
		if code, _, errs := command(t, nil, nil, append([]string{"ring", "plan", "--admin", admin}, args...)...); code != exitUsage {
			t.Error(args, code, errs)
		}
	}
}

func TestDrain(t *testing.T) {
	c := &cluster{ring: exampleRing(), drain: console.Drain{NodeID: "0123456789abcdef", Partitions: 96}}
	c.status = console.Status{NodeID: "fedcba9876543210"}
	admin := c.serve(t)
	c.status.Nodes = []console.Node{{ID: "0123456789abcdef", AdminAddr: admin}, {ID: "fedcba9876543210", AdminAddr: "127.0.0.1:1"}}
	c.step = func(c *cluster) { c.drain.Partitions = 0 }
	code, out, errs := command(t, nil, nil, "drain", "--admin", admin, "--node", "0123")
	for _, part := range []string{"node 0123456789abcdef hands over 96 partitions\n", "96 partitions left, 3.0MiB/s, 2.5 replicas/s", "about 42s\n", "node 0123456789abcdef holds nothing, and may be stopped\n"} {
		if code != exitOK || errs != "" || !strings.Contains(out, part) {
			t.Errorf("%d %s, lacks %q:\n%s", code, errs, part, out)
		}
	}
	if code, out, _ = command(t, nil, nil, "drain", "--admin", admin, "--undo"); code != exitOK || !strings.Contains(out, "takes partitions again") || c.drain.Asked {
		t.Error(code, out)
	}
	if code, _, errs = command(t, nil, nil, "drain", "--admin", admin, "--node", "9"); code != exitFailure || !strings.Contains(errs, `0 nodes are called "9"`) {
		t.Error(code, errs)
	}
	c.cannot = errors.New("nobody can take what this node holds: 2 other nodes for 3 replicas")
	if code, _, errs = command(t, nil, nil, "drain", "--admin", admin); code != exitFailure || !strings.Contains(errs, "2 other nodes for 3 replicas") {
		t.Error(code, errs)
	}
	// Whoever takes it back meanwhile, or restarts the node, is told of.
	c.cannot, c.drain.Partitions = nil, 5
	c.step = func(c *cluster) { c.drain.Asked = false }
	if code, _, errs = command(t, nil, nil, "drain", "--admin", admin); code != exitFailure || !strings.Contains(errs, "takes partitions again") {
		t.Error(code, errs)
	}
}

func TestRecover(t *testing.T) {
	c := &cluster{lost: console.Recovery{NodeID: "aa", Cluster: "kai", Partitions: []console.LostPartition{}}}
	admin := c.serve(t)
	if code, out, errs := command(t, nil, nil, "recover", "--admin", admin); code != exitOK || errs != "" || !strings.Contains(out, "every partition has its quorum") {
		t.Error(code, out, errs)
	}
	for p := range 20 {
		l := console.LostPartition{Partition: p, Epoch: 1, Members: []string{"aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"}, Survivors: []string{"aaaaaaaaaaaa"},
			Gone: []string{"bbbbbbbbbbbb", "cccccccccccc"}, New: []string{"aaaaaaaaaaaa"}, Loss: "what was acknowledged"}
		if p == 7 {
			l.Survivors, l.Gone, l.Loss, l.New = nil, l.Members, "everything in it", []string{"dddddddddddd"}
		}
		c.lost.Partitions = append(c.lost.Partitions, l)
	}
	code, out, errs := command(t, nil, nil, "recover", "--admin", admin)
	for _, part := range []string{"19: 0–6, 8–19", "1: 7", "aaaaaaaa alive, bbbbbbbb gone, cccccccc gone", "everything in it", "in generation 1 at aaaaaaaa", "in generation 1 at dddddddd", "kai recover --confirm kai", "nothing is lost then: aaaaaaaa, bbbbbbbb, cccccccc"} {
		if code != exitFailure || !strings.Contains(out, part) {
			t.Errorf("%d %s, lacks %q:\n%s", code, errs, part, out)
		}
	}
	if !strings.Contains(errs, "nothing was recovered: that wants --confirm kai") || c.lost.Partitions[0].Recovered {
		t.Error(errs)
	}
	if code, _, errs = command(t, nil, nil, "recover", "--admin", admin, "--confirm", "other"); code != exitFailure || !strings.Contains(errs, "not confirmed: this is cluster kai") || c.lost.Partitions[0].Recovered {
		t.Error(code, errs)
	}
	c.lost.Partitions[7].Refused = "node bbbb has not been away for KAI_REPLACE_AFTER yet"
	code, out, errs = command(t, nil, nil, "recover", "--admin", admin, "--confirm", "kai")
	if code != exitFailure || !strings.Contains(errs, "1 partition was not recovered") || !strings.Contains(out, "generation 1 at aaaaaaaa") || !strings.Contains(out, "not now      node bbbb has not been away") {
		t.Errorf("%d %s:\n%s", code, errs, out)
	}
	c.lost.Partitions[7].Refused = ""
	if code, out, errs = command(t, nil, nil, "recover", "--admin", admin, "--confirm", "kai", "-o", "json"); code != exitOK || !strings.Contains(out, `"recovered": true`) {
		t.Errorf("%d %s:\n%s", code, errs, out)
	}
}

func TestRanges(t *testing.T) {
	for want, numbers := range map[string][]int{"": nil, "3": {3}, "3–4": {3, 4}, "0–2, 5, 7–8": {0, 1, 2, 5, 7, 8}} {
		if got := ranges(numbers); got != want {
			t.Errorf("%v: %q", numbers, got)
		}
	}
	var many []int
	for i := range 40 {
		many = append(many, 2*i)
	}
	if got := ranges(many); !strings.HasSuffix(got, ", 22, … (28 more; -o json lists all)") {
		t.Error(got)
	}
}

func TestBar(t *testing.T) {
	for share, want := range map[float64]string{
		0: "░░░░░░░░░░░░░░░░    ", 1: "████████████████    ", 0.5: "████████░░░░░░░░    ", 1.0625: "█████████████████   ", 9: "████████████████████", 0.507: "████████▏░░░░░░░    ",
	} {
		if got := bar(share); got != want {
			t.Errorf("%v: %q", share, got)
		}
	}
}
