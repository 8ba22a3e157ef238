package membership

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"kai/node/ring"
)

// foundry drives the state machines of a few nodes through random interleavings: messages are
// delayed, lost, doubled and reordered, nodes see arbitrary parts of each other, and power fails
// anywhere, before and after a save reaches the disk.
type foundry struct {
	t       testing.TB
	rand    *rand.Rand
	expect  int
	now     time.Time
	disks   []*disk
	nodes   []*genesis // nil while down
	flight  []outgoing
	trouble float64 // chance of each kind of trouble at a step
	decided map[string]*ring.Founding
	at      map[ring.NodeID]string // cluster id by node, once founded
	log     *slog.Logger
	lives   int     // of all disks
	bucket  *bucket // nil: there is none
}

// bucket is a registry that nodes ask: claims and looks are under way for a while, and may be carried out, or answered, when who asked is dead.
type bucket struct {
	founded map[uint32]*ring.Founding
	sealed  map[uint32]string
	claims  []asked
	looks   []asked // Ground was read when they were asked
}

type asked struct {
	by     *genesis
	at     int
	claim  *ring.Founding
	ground Ground
}

func (b *bucket) ground() (g Ground) {
	for n, f := range b.founded {
		if n > g.Generation {
			g = Ground{Generation: n, Founded: f}
		}
	}
	if snapshot, ok := b.sealed[g.Generation]; ok {
		g.Founded, g.Snapshot = nil, snapshot
	}
	return g
}

// ask has a node look at the bucket, or some question be answered.
func (f *foundry) ask(i int) {
	b := f.bucket
	if f.chance(0.5) {
		b.looks = append(b.looks, asked{by: f.nodes[i], at: i, ground: b.ground()})
	}
	if len(b.claims) > 0 && f.chance(0.5) {
		at := f.rand.IntN(len(b.claims))
		q := b.claims[at]
		b.claims = append(b.claims[:at], b.claims[at+1:]...)
		if f.chance(f.trouble) {
			return // not carried out
		}
		chosen := b.founded[q.claim.Generation]
		if chosen == nil {
			chosen = q.claim
			b.founded[chosen.Generation] = chosen
		}
		if f.nodes[q.at] == q.by && !f.chance(f.trouble) {
			out, err := q.by.onClaimed(f.now, chosen)
			f.took(q.at, out, err)
		}
	}
	if len(b.looks) > 0 && f.chance(0.8) {
		at := f.rand.IntN(len(b.looks))
		q := b.looks[at]
		b.looks = append(b.looks[:at], b.looks[at+1:]...)
		if f.nodes[q.at] == q.by {
			out, err := q.by.onGround(f.now, q.ground)
			f.took(q.at, out, err)
		}
	}
}

// onlyRegistry says that there is one; the foundry asks it.
type onlyRegistry struct{ Registry }

func newFoundry(t testing.TB, seed uint64, nodes, expect int, log *slog.Logger) *foundry {
	f := &foundry{
		t: t, rand: rand.New(rand.NewPCG(seed, 2)), expect: expect, now: time.Unix(0, 0), log: log,
		decided: map[string]*ring.Founding{}, at: map[ring.NodeID]string{},
	}
	for i := range nodes {
		f.disks = append(f.disks, &disk{})
		f.nodes = append(f.nodes, nil)
		f.boot(i)
	}
	return f
}

func (f *foundry) boot(i int) {
	o := Options{
		Self: ring.NodeInfo{Node: ring.Node{ID: nodeID(i + 1 + 100*f.lives)}}, Cluster: "kai", Store: f.disks[i], Expect: f.expect,
		Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 64, VNodes: 16, Logger: f.log,
	}
	if f.bucket != nil {
		o.Registry = onlyRegistry{}
	}
	g, err := newGenesis(&o)
	if err != nil {
		f.t.Fatal(err)
	}
	g.newID = func() string { return fmt.Sprintf("%032x", f.rand.Uint64()) }
	f.nodes[i] = g
}

// took handles what a state machine returned, and checks what must always hold.
func (f *foundry) took(i int, out []outgoing, err error) {
	switch {
	case errors.Is(err, errPower):
		f.nodes[i] = nil // a message that was to follow the save is never sent
		out = nil
	case err != nil:
		f.t.Fatalf("node %d: %v", i+1, err)
	}
	f.flight = append(f.flight, out...)
	if g := f.nodes[i]; g != nil && g.claim != nil {
		f.bucket.claims = append(f.bucket.claims, asked{by: g, at: i, claim: g.claim})
		g.claim = nil
	}
	f.check(i)
}

// check: a node's founding never changes, and no two foundings share a founder, even one that
// does not know yet.
func (f *foundry) check(i int) {
	founding := f.disks[i].state.Founded
	id := nodeID(i + 1 + 100*f.lives)
	if founding == nil {
		if f.at[id] != "" {
			f.t.Fatalf("node %s forgot cluster %s", id, f.at[id])
		}
		return
	}
	if was := f.at[id]; was != "" && was != founding.ClusterID {
		f.t.Fatalf("node %s went from cluster %s to %s", id, was, founding.ClusterID)
	}
	f.at[id] = founding.ClusterID
	f.decided[founding.ClusterID] = founding
	for _, a := range f.decided {
		for _, b := range f.decided {
			if f.bucket != nil && a.ClusterID != b.ClusterID && a.Generation == b.Generation {
				f.t.Fatalf("clusters %s and %s are both of generation %d", a.ClusterID, b.ClusterID, a.Generation)
			}
			for _, n := range a.Nodes {
				if a.ClusterID != b.ClusterID && isFounder(b, n.ID) {
					f.t.Fatalf("clusters %s and %s share founder %s", a.ClusterID, b.ClusterID, n.ID)
				}
				if was := f.at[n.ID]; was != "" && was != a.ClusterID {
					f.t.Fatalf("founder %s of %s is in %s", n.ID, a.ClusterID, was)
				}
			}
		}
	}
}

func (f *foundry) chance(p float64) bool { return f.rand.Float64() < p }

// sight is a random part of the nodes that are up (all, without trouble).
func (f *foundry) sight(i int) []peer {
	var live []peer
	for j, g := range f.nodes {
		if j == i || g == nil || f.trouble > 0 && f.chance(0.3) {
			continue
		}
		p := peer{Node: g.self, Settings: g.settings, Expect: f.expect}
		if d := g.founded(); d != nil && !f.chance(f.trouble) { // gossip may be late
			p.ClusterID = d.ClusterID
		}
		live = append(live, p)
	}
	return live
}

func (f *foundry) step() {
	f.now = f.now.Add(time.Duration(f.rand.IntN(2000)) * time.Millisecond)
	i := f.rand.IntN(len(f.nodes))
	switch {
	case f.nodes[i] == nil:
		if f.trouble == 0 || f.chance(0.3) {
			f.boot(i)
		}
		return
	case f.chance(f.trouble / 3):
		f.nodes[i] = nil
		return
	case f.chance(f.trouble):
		f.powerFails(i)
	}
	if f.bucket != nil && f.chance(0.3) {
		f.ask(i)
		return
	}
	if len(f.flight) > 0 && f.chance(0.7) {
		f.deliver()
		return
	}
	out, err := f.nodes[i].tick(f.now, f.sight(i), true)
	f.took(i, out, err)
}

// powerFails lets the next save of the node end in a power cut, before or after it is durable.
func (f *foundry) powerFails(i int) {
	d, before := f.disks[i], f.chance(0.5)
	d.fail = func() error {
		d.fail = nil
		return errPower
	}
	if !before {
		d.late = true
	}
}

func (f *foundry) deliver() {
	at := f.rand.IntN(len(f.flight))
	o := f.flight[at]
	if !f.chance(f.trouble) { // else it will come once more
		f.flight[at] = f.flight[len(f.flight)-1]
		f.flight = f.flight[:len(f.flight)-1]
	}
	if f.chance(f.trouble) {
		return // lost
	}
	for j, g := range f.nodes {
		if g != nil && g.self.ID == o.to {
			b, err := decodeMessage(encodeMessage(o.message))
			if err != nil {
				f.t.Fatal(err)
			}
			out, err := g.receive(f.now, b)
			f.took(j, out, err)
		}
	}
}

// settle goes on without trouble until every node is founded.
func (f *foundry) settle() {
	f.trouble = 0
	for _, d := range f.disks {
		d.fail, d.late = nil, false
	}
	for range 20000 {
		f.step()
		done := true
		for _, g := range f.nodes {
			done = done && g != nil && g.founded() != nil
		}
		if done {
			return
		}
	}
	for i, d := range f.disks {
		f.t.Logf("node %d: %+v", i+1, d.state)
	}
	f.t.Fatal("never founded, although all nodes are up and the network works")
}

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

var foundings = flag.Uint64("foundings", 300, "random interleavings of the founding for each size of cluster")

func TestFoundingSurvivesEveryInterleaving(t *testing.T) {
	seeds := *foundings
	for _, c := range []struct{ nodes, expect int }{{3, 3}, {5, 3}, {5, 5}, {5, 2}, {3, 1}, {7, 4}} {
		many := 0
		for seed := range seeds {
			f := newFoundry(t, seed, c.nodes, c.expect, silent)
			f.trouble = []float64{0.02, 0.1, 0.3}[seed%3]
			for range 100 + f.rand.IntN(400) {
				f.step()
			}
			if 2*c.expect <= c.nodes { // half may found without the other: clusters which nothing can merge
				if len(f.decided) > 1 {
					many++
				}
				continue
			}
			f.settle()
			if len(f.decided) != 1 {
				t.Fatalf("seed %d: %d clusters", seed, len(f.decided))
			}
		}
		t.Logf("%d of %d: %d runs, %d with several disjoint clusters", c.expect, c.nodes, seeds, many)
	}
}

// With a registry there is one cluster, however many could found one without the others. It is sealed, all disks are
// lost, and there is one of the next generation.
func TestFoundingWithARegistry(t *testing.T) {
	for _, c := range []struct{ nodes, expect int }{{3, 3}, {5, 2}, {6, 3}, {4, 1}, {7, 3}} {
		for seed := range *foundings {
			f := newFoundry(t, seed, 0, c.expect, silent)
			f.bucket = &bucket{founded: map[uint32]*ring.Founding{}, sealed: map[uint32]string{}}
			for generation := range uint32(3) {
				f.lives++
				f.disks, f.nodes, f.flight = nil, nil, nil
				for i := range c.nodes {
					f.disks, f.nodes = append(f.disks, &disk{}), append(f.nodes, nil)
					f.boot(i)
				}
				f.trouble = []float64{0.02, 0.1, 0.3}[seed%3]
				for range 100 + f.rand.IntN(400) {
					f.step()
				}
				f.settle()
				if len(f.decided) != int(generation)+1 {
					t.Fatalf("seed %d: %d clusters at generation %d", seed, len(f.decided), generation+1)
				}
				for _, g := range f.nodes {
					d := g.founded()
					want := ""
					if generation > 0 {
						want = fmt.Sprint("snapshot", generation)
					}
					if d.Generation != generation+1 || d.Snapshot != want || !equalFounding(d, f.bucket.founded[generation+1]) {
						t.Fatalf("seed %d: node %s is in %+v", seed, g.self.ID, d)
					}
				}
				f.bucket.sealed[generation+1] = fmt.Sprint("snapshot", generation+1)
			}
		}
	}
}

// Power fails at each save of each node of three in turn, before and after it is durable; the
// node comes back, and there is one cluster.
func TestFoundingSurvivesACrashAtEverySave(t *testing.T) {
	for victim := range 3 {
		for save := range 3 {
			for _, late := range []bool{false, true} {
				f := newFoundry(t, 1, 3, 3, silent)
				count, d := 0, f.disks[victim]
				d.late = late
				d.fail = func() error {
					if count++; count == save+1 {
						d.fail = nil
						return errPower
					}
					d.late = late
					return nil
				}
				for range 300 {
					f.step()
				}
				f.settle()
				if len(f.decided) != 1 {
					t.Errorf("victim %d, save %d, late %v: %d clusters", victim, save, late, len(f.decided))
				}
			}
		}
	}
}
