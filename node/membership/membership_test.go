package membership

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestThreeNodesFoundOneCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		w.seeds = []string{nodeAddr(1), nodeAddr(2), nodeAddr(3)}
		var nodes []*node
		for i := 1; i <= 3; i++ {
			nodes = append(nodes, w.start(i, nodeAddr(i), &disk{}, nil))
		}
		start := time.Now()
		w.eventually(time.Minute, "one cluster", one(nodes...))
		w.eventually(time.Minute, "all alive", all("1 2 3", nodes...))
		t.Logf("founded after %v", time.Since(start))
		f, _ := nodes[2].Founded()
		if len(f.Nodes) != 3 || f.Nodes[0].ID != nodeID(1) || f.Nodes[2].Zone != "z" || f.Name != "kai" || f.Partitions != 64 {
			t.Errorf("founding %+v", f)
		}
		w.eventually(time.Minute, "the cluster id is gossiped", func() bool {
			for _, o := range nodes[0].View().Nodes {
				if o.ClusterID != f.ClusterID {
					return false
				}
			}
			return true
		})
	})
}

func TestFiveAtOnceFoundOneCluster(t *testing.T) {
	seeds := 30
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		for _, expect := range []int{3, 5} {
			t.Run(fmt.Sprintf("%d of 5 seed %d", expect, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, uint64(seed))
					defer w.close()
					w.net.delay, w.net.loss = 80*time.Millisecond, 0.2
					var nodes []*node
					for i := 1; i <= 5; i++ {
						w.seeds = append(w.seeds, nodeAddr(i))
					}
					for i := 1; i <= 5; i++ {
						nodes = append(nodes, w.start(i, nodeAddr(i), &disk{}, func(o *Options) { o.Expect = expect }))
					}
					w.eventually(5*time.Minute, "one cluster", one(nodes...))
				})
			})
		}
	}
}

// three starts three nodes that know each other's addresses, and waits for their cluster.
func three(w *world, change func(*Options)) []*node {
	w.t.Helper()
	var nodes []*node
	for i := 1; i <= 3; i++ {
		w.seeds = append(w.seeds, nodeAddr(i))
	}
	for i := 1; i <= 3; i++ {
		nodes = append(nodes, w.start(i, nodeAddr(i), &disk{}, change))
	}
	w.eventually(time.Minute, "one cluster", one(nodes...))
	w.eventually(time.Minute, "all alive", all("1 2 3", nodes...))
	return nodes
}

func TestLongPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		nodes := three(w, nil)
		changed := nodes[0].Changed()
		serial := nodes[0].View().Serial
		one := func(a string) bool { return a == nodeAddr(3) }
		w.net.set(func() { w.net.cut = func(a, b string) bool { return one(a) != one(b) } })
		time.Sleep(10 * time.Minute)
		if !all("1 2", nodes[:2]...)() || nodes[2].alive() != "3" {
			t.Fatalf("cut off: %q %q %q", nodes[0].alive(), nodes[1].alive(), nodes[2].alive())
		}
		if v := nodes[0].View(); len(v.Nodes) != 3 || v.Nodes[2].Alive || v.Serial <= serial {
			t.Errorf("the dead founder should stay in the view: %+v", v)
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was told of the new view")
		}
		w.net.set(func() { w.net.cut = func(a, b string) bool { return false } })
		start := time.Now()
		w.eventually(40*time.Second, "healed", all("1 2 3", nodes...))
		t.Logf("healed after %v", time.Since(start))
	})
}

func TestCrashIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		nodes := three(w, nil)
		nodes[0].crash()
		start := time.Now()
		w.eventually(10*time.Second, "crash seen", all("2 3", nodes[1:]...))
		t.Logf("crash seen by all after %v", time.Since(start))
	})
}

func TestRestartAtNewAddress(t *testing.T) {
	for _, crash := range []bool{true, false} {
		t.Run(fmt.Sprintf("crash %v", crash), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				defer w.close()
				nodes := three(w, nil)
				if crash {
					nodes[2].crash()
				} else {
					nodes[2].stop()
					<-nodes[2].ended
				}
				again := w.start(3, nodeAddr(33), nodes[2].disk, nil) // no seed names this address
				moved := func() bool {
					for _, n := range []*node{nodes[0], nodes[1], again} {
						info, _ := n.View().Find(nodeID(3))
						if !info.Alive || info.GossipAddr != nodeAddr(33) || info.Boot != 2 || n.alive() != "1 2 3" {
							return false
						}
					}
					return true
				}
				start := time.Now()
				w.eventually(time.Minute, "known at the new address", moved)
				t.Logf("after %v", time.Since(start))
				if again.cluster() != nodes[0].cluster() {
					t.Error("another cluster")
				}
			})
		})
	}
}

func TestLateNodeIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		nodes := three(w, nil)
		late := w.start(4, nodeAddr(4), &disk{}, nil)
		w.eventually(time.Minute, "told", one(append(nodes, late)...))
		if f, _ := late.Founded(); isFounder(&f, late.id) {
			t.Error("a late node is a founder")
		}
		<-late.WhenFounded()
	})
}

func TestOtherSettingsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		nodes := three(w, nil)
		odd := w.start(4, nodeAddr(4), &disk{}, func(o *Options) { o.Quorum.N, o.Quorum.R, o.Quorum.W = 5, 3, 3 })
		select {
		case <-odd.ended:
		case <-time.After(time.Minute):
			t.Fatal("still there")
		}
		for _, word := range []string{"quorum 3:2:2, partitions 64, vnodes 16", "quorum 5:3:3, partitions 64, vnodes 16", nodes[0].cluster()} {
			if odd.err == nil || !strings.Contains(odd.err.Error(), word) {
				t.Errorf("error lacks %q: %v", word, odd.err)
			}
		}
		if nodes[0].alive() != "1 2 3" {
			t.Errorf("let in: %s", nodes[0].alive())
		}
	})
}

// Before there is a cluster nobody knows who is right: both sides say so, none ends.
func TestOtherSettingsBeforeFounding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		w.seeds = []string{nodeAddr(1), nodeAddr(2)}
		a := w.start(1, nodeAddr(1), &disk{}, nil)
		b := w.start(2, nodeAddr(2), &disk{}, func(o *Options) { o.Partitions = 128 })
		time.Sleep(time.Minute)
		for _, n := range []*node{a, b} {
			if !n.logs.has("level=ERROR", "partitions 64", "partitions 128") || n.Stats().Refused == 0 {
				t.Errorf("node %s does not say both values", n.id)
			}
		}
	})
}

func TestFoundedSettingsOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		nodes := three(w, nil)
		w.close()
		for _, c := range []struct {
			change func(*Options)
			words  []string
		}{
			{func(o *Options) { o.Partitions = 128 }, []string{"partitions 128", "partitions 64"}},
			{func(o *Options) { o.Cluster = "other" }, []string{`"other"`, `"kai"`}},
		} {
			o := w.options(1, nodeAddr(1), nodes[0].disk, nodes[0].logs)
			c.change(&o)
			_, err := New(o)
			for _, word := range c.words {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("error lacks %q: %v", word, err)
				}
			}
		}
		m, err := New(w.options(1, nodeAddr(1), nodes[0].disk, nodes[0].logs))
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := m.Founded(); !ok || f.ClusterID != nodes[1].cluster() {
			t.Errorf("founding not loaded: %+v", f)
		}
		if v := m.View(); len(v.Nodes) != 3 || !v.Nodes[0].Alive || v.Nodes[1].Alive {
			t.Errorf("first view: %+v", v)
		}
	})
}

func TestClustersNeverMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		a := three(w, nil)
		// A second cluster of the same name is founded out of sight, then the wall falls.
		left := func(addr string) bool { return addr <= nodeAddr(3) }
		w.net.set(func() { w.net.cut = func(a, b string) bool { return left(a) != left(b) } })
		var b []*node
		w.seeds = nil
		for i := 1; i <= 6; i++ {
			w.seeds = append(w.seeds, nodeAddr(i))
		}
		for i := 4; i <= 6; i++ {
			b = append(b, w.start(i, nodeAddr(i), &disk{}, nil))
		}
		w.eventually(time.Minute, "second cluster", one(b...))
		if a[0].cluster() == b[0].cluster() {
			t.Fatal("the wall leaks")
		}
		w.net.set(func() { w.net.cut = func(a, b string) bool { return false } })
		time.Sleep(5 * time.Minute)
		if !all("1 2 3", a...)() || !all("4 5 6", b...)() {
			t.Errorf("merged: %q, %q", a[0].alive(), b[0].alive())
		}
		if !a[0].logs.has("level=ERROR", a[0].cluster(), b[0].cluster()) {
			t.Error("nobody says both ids")
		}
		// A node between them belongs to one at most, and the other does not count it.
		between := w.start(7, nodeAddr(7), &disk{}, nil)
		time.Sleep(2 * time.Minute)
		seenBy := map[string]string{a[0].cluster(): a[0].alive(), b[0].cluster(): b[0].alive()}
		for id, alive := range seenBy {
			if strings.Contains(alive, "7") != (id == between.cluster() || between.cluster() == "") {
				t.Errorf("cluster %s sees %s; the node between is in %q", id, alive, between.cluster())
			}
		}
		if mine := seenBy[between.cluster()]; between.cluster() != "" && between.alive() != mine {
			t.Errorf("the node between sees %q, its cluster %q", between.alive(), mine)
		}
	})
}

func TestRolledBackDiskIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		nodes := three(w, nil)
		nodes[2].stop()
		<-nodes[2].ended
		again := w.start(3, nodeAddr(3), nodes[2].disk, nil)
		w.eventually(time.Minute, "back", all("1 2 3", nodes[0], again))
		again.stop()
		<-again.ended
		nodes[2].disk.boot = 0
		back := w.start(3, nodeAddr(3), nodes[2].disk, nil)
		select {
		case <-back.ended:
		case <-time.After(time.Minute):
			t.Fatal("still there")
		}
		if back.err == nil || !strings.Contains(back.err.Error(), "rolled back") {
			t.Errorf("error: %v", back.err)
		}
	})
}

func TestCopiedDiskIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		nodes := three(w, nil)
		time.Sleep(2 * newcomer)
		copied := &disk{state: nodes[2].disk.state, boot: nodes[2].disk.boot - 1}
		twin := w.start(3, nodeAddr(9), copied, nil)
		select {
		case <-twin.ended:
		case <-time.After(time.Minute):
			t.Fatal("still there")
		}
		if twin.err == nil || !strings.Contains(twin.err.Error(), "copy") {
			t.Errorf("error: %v", twin.err)
		}
		select {
		case <-nodes[2].ended:
			t.Errorf("the copy ended the original: %v", nodes[2].err)
		default:
		}
		w.eventually(time.Minute, "as before", all("1 2 3", nodes...))
	})
}

func TestExpectOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		lonely := func(o *Options) { o.Expect = 1 }
		alone := w.start(1, nodeAddr(1), &disk{}, func(o *Options) { o.Expect, o.Find = 1, nil })
		w.eventually(time.Second, "founded alone", one(alone))
		// With seeds it asks them first, and joins what is there.
		w.seeds = []string{nodeAddr(1), nodeAddr(2), nodeAddr(3)}
		b := w.start(2, nodeAddr(2), &disk{}, lonely)
		c := w.start(3, nodeAddr(3), &disk{}, lonely)
		w.eventually(time.Minute, "joined", one(alone, b, c))
	})
}

func TestExpectOneWithDeadSeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		w.seeds = []string{nodeAddr(8), nodeAddr(9)}
		n := w.start(1, nodeAddr(1), &disk{}, func(o *Options) { o.Expect = 1 })
		w.eventually(time.Minute, "founded", one(n))
	})
}

// A seed list that cannot be had is no proof that there is no cluster.
func TestExpectOneWithoutDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		fails := func(context.Context) ([]string, error) { return nil, errors.New("no DNS") }
		n := w.start(1, nodeAddr(1), &disk{}, func(o *Options) { o.Expect, o.Find = 1, fails })
		time.Sleep(5 * time.Minute)
		if n.cluster() != "" || n.Stats().FindFailures == 0 || !n.logs.has("no DNS") {
			t.Errorf("founded %q, %+v", n.cluster(), n.Stats())
		}
	})
}

func TestProposerGoneForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		w.seeds = []string{nodeAddr(1), nodeAddr(2), nodeAddr(3)}
		// Power fails as the proposer founds: the others have voted, and cannot know.
		saves := 0
		first := &disk{}
		first.fail = func() error {
			if saves++; saves == 2 {
				return errPower
			}
			return nil
		}
		proposer := w.start(1, nodeAddr(1), first, nil)
		b := w.start(2, nodeAddr(2), &disk{}, nil)
		c := w.start(3, nodeAddr(3), &disk{}, nil)
		<-proposer.ended
		if !errors.Is(proposer.err, errPower) {
			t.Fatal(proposer.err)
		}
		time.Sleep(5 * time.Minute)
		for _, n := range []*node{b, c} {
			if n.cluster() != "" || !n.logs.has("level=ERROR", "founding stuck", "Start the proposer again", string(nodeID(1))) {
				t.Errorf("node %s: cluster %q", n.id, n.cluster())
			}
		}
		first.fail = nil
		again := w.start(1, nodeAddr(1), first, nil)
		w.eventually(time.Minute, "founded after all", one(again, b, c))
	})
}
