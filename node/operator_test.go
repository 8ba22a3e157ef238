package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"kai/node/console"
	"kai/node/placement"
	"kai/node/ring"
)

func TestReportCodec(t *testing.T) {
	want := report{records: 1, bytes: 2, pulled: 3, bytesRate: 4, pulledRate: 5, disk: 6, held: 1 << 40}
	b := appendReport(nil, want)
	if got, ok := parseReport(append(b, 9, 9)); !ok || got != want { // a later build says more
		t.Errorf("%+v %v", got, ok)
	}
	if _, ok := parseReport(b[:len(b)-1]); ok {
		t.Error("a report cut short is taken")
	}
	sum := want
	sum.add(want)
	if sum.records != 2 || sum.held != 1<<41 || sum.disk != 12 {
		t.Errorf("%+v", sum)
	}
}

// Rates are of the last ten seconds, without the time before anything came.
func TestMeter(t *testing.T) {
	var m meter
	var c placement.Counters
	at := time.Unix(1000, 0)
	second := func(bytes, pulled uint64) {
		c.Bytes.Add(bytes)
		c.Pulled.Add(pulled)
		at = at.Add(time.Second)
		m.take(at, &c)
	}
	if b, p := m.rates(); b != 0 || p != 0 {
		t.Error(b, p)
	}
	for range 30 {
		second(0, 0)
	}
	if b, p := m.rates(); b != 0 || p != 0 {
		t.Error(b, p)
	}
	second(1000, 2)
	second(3000, 0)
	if b, p := m.rates(); b != 2000 || p != 1 {
		t.Error(b, p)
	}
	for range 6 {
		second(0, 0)
	}
	if b, p := m.rates(); b != 500 || p != 0.25 {
		t.Error(b, p)
	}
	for range 10 {
		second(0, 0)
	}
	if b, p := m.rates(); b != 0 || p != 0 {
		t.Error("old transfers still count", b, p)
	}
}

func TestSecondsLeft(t *testing.T) {
	for _, c := range []struct {
		t    console.Transfer
		want float64
	}{
		{console.Transfer{}, 0},
		{console.Transfer{LeftReplicas: 10}, -1},
		{console.Transfer{LeftReplicas: 10, ReplicasPerSecond: 2.5, BytesPerSecond: 1, LeftBytes: 1 << 40}, 4},
		{console.Transfer{LeftReplicas: 10, BytesPerSecond: 1 << 20, LeftBytes: 30 << 20}, 30},
	} {
		if got := secondsLeft(c.t); got != c.want {
			t.Errorf("%+v: %v, want %v", c.t, got, c.want)
		}
	}
}

func TestReplicaBytes(t *testing.T) {
	q := ring.Quorum{N: 3, R: 2, W: 2}
	for _, c := range []struct {
		r    report
		want float64
	}{
		{report{}, 0}, {report{disk: 1000, held: 10}, 200}, {report{disk: 1000, held: 10, pulled: 20, bytes: 600}, 30}, {report{disk: 1000, held: 10, pulled: 3, bytes: 600}, 200},
	} {
		if got := replicaBytes(c.r, q); got != c.want {
			t.Errorf("%+v: %v", c.r, got)
		}
	}
}

func TestOutlookCounts(t *testing.T) {
	conf := func(members string, next string) ring.Configuration {
		split := func(s string) (ids []ring.NodeID) {
			for _, f := range strings.Fields(s) {
				ids = append(ids, ring.NodeID(f))
			}
			return ids
		}
		return ring.Configuration{Epoch: 1, Members: split(members), Next: split(next)}
	}
	current := []ring.Configuration{conf("a b c", ""), conf("a b c", "a b d"), conf("a b c", ""), conf("c b a", "")}
	lists := [][]ring.NodeID{{"a", "b", "c"}, {"a", "b", "d"}, {"d", "b", "e"}, {"a", "b", "c"}}
	o := newOutlook(current, nil, lists)
	if o.moving != 1 || o.planned != 1 || o.left != 3 || o.in["d"] != 2 || o.in["e"] != 1 || o.out["c"] != 2 || o.out["a"] != 1 || o.out["b"] != 0 {
		t.Errorf("%+v", o)
	}
	// Without a plan only what moves already counts.
	o = newOutlook(current, nil, nil)
	if o.moving != 1 || o.planned != 0 || o.left != 1 {
		t.Errorf("%+v", o)
	}
	rows := planNodes([]ring.NodeInfo{{Node: ring.Node{ID: "a"}, Alive: true}, {Node: ring.Node{ID: "c"}, Alive: true}}, []ring.NodeID{"c"}, []ring.Weighted{{Node: ring.Node{ID: "d"}}}, newOutlook(current, nil, lists))
	if len(rows) != 3 || rows[0].Fate != console.PlanStays || rows[1].Fate != console.PlanLeaves || rows[2].Fate != console.PlanComes ||
		rows[0].Before != 4 || rows[0].After != 3 || rows[0].FavouredBefore != 3 || rows[1].Out != 2 || rows[2].In != 2 || rows[2].After != 2 {
		t.Errorf("%+v", rows)
	}
}

func TestResolveNodes(t *testing.T) {
	nodes := []ring.NodeInfo{{Node: ring.Node{ID: "aabb"}, PeerAddr: "10.0.0.1:2", AdminAddr: "10.0.0.1:4"}, {Node: ring.Node{ID: "aacc"}, PeerAddr: "10.0.0.2:2", GossipAddr: "10.0.0.2:3"}}
	ids, err := resolveNodes(nodes, []string{"aab", "10.0.0.2:2", "10.0.0.1:4", "10.0.0.2:3"})
	if err != nil || !slices.Equal(ids, []ring.NodeID{"aabb", "aacc", "aabb", "aacc"}) {
		t.Error(ids, err)
	}
	for name, problem := range map[string]string{"aa": "2 nodes", "b": "no node", "": "no node", "10.0.0.1": "no node"} {
		if _, err := resolveNodes(nodes, []string{name}); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Nodes that are made up go where the fewest are, or in the zones that are named, in turn.
func TestNewcomers(t *testing.T) {
	view := &ring.View{Nodes: []ring.NodeInfo{{Node: ring.Node{ID: "1", Zone: "a"}, Alive: true}, {Node: ring.Node{ID: "2", Zone: "a"}, Alive: true},
		{Node: ring.Node{ID: "3", Zone: "b"}, Alive: true}, {Node: ring.Node{ID: "4", Zone: "c"}}}}
	zones := func(q console.PlanQuery) (all string) {
		added, err := newcomers(q, view)
		if err != nil {
			return err.Error()
		}
		for _, w := range added {
			all += w.Zone
		}
		return all
	}
	if got := zones(console.PlanQuery{With: 4}); got != "baba" {
		t.Error(got)
	}
	if got := zones(console.PlanQuery{With: 3, Zones: []string{"x", "y"}}); got != "xyx" {
		t.Error(got)
	}
	if added, _ := newcomers(console.PlanQuery{With: 1, Weight: 2.5}, view); added[0].Weight != 2500 {
		t.Error(added)
	}
	if got := zones(console.PlanQuery{With: 1, Weight: 11}); !strings.Contains(got, "not between") {
		t.Error(got)
	}
}

func TestLostWords(t *testing.T) {
	l := lostPartition{loss: placement.Loss{Awaited: []ring.NodeID{"a"}}}
	if !strings.Contains(l.refused(), "may come back") || l.words() != "everything in it" {
		t.Error(l.refused(), l.words())
	}
	l = lostPartition{next: []ring.NodeID{"a"}, loss: placement.Loss{Survivors: []ring.NodeID{"a"}, Acknowledged: true}}
	if l.refused() != "" || !strings.Contains(l.words(), "deletions") {
		t.Error(l.refused(), l.words())
	}
	if l.loss.Acknowledged = false; l.words() != "nothing that was acknowledged" {
		t.Error(l.words())
	}
	r := recoveries([]ring.Configuration{{Epoch: 9}, {Epoch: 1<<24 | 5}, {Epoch: 3 << 24}})
	if r.Generation != 3 || r.Partitions != 2 {
		t.Errorf("%+v", r)
	}
}
