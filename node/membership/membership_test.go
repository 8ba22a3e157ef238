package membership

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

// Two halves of a cluster, each for itself for ten minutes, are one membership again soon, and so are nodes
// of which one was not a founder: gossip has forgotten the dead, and the view those who are no founders.
func TestHalvesHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		nodes := append(three(w, nil), w.start(4, nodeAddr(4), &disk{}, nil)) // which no seed names
		w.eventually(time.Minute, "joined", all("1 2 3 4", nodes...))
		left := func(addr string) bool { return addr <= nodeAddr(2) }
		w.net.set(func() { w.net.cut = func(a, b string) bool { return left(a) != left(b) } })
		time.Sleep(10 * time.Minute)
		if !all("1 2", nodes[:2]...)() || !all("3 4", nodes[2:]...)() {
			t.Fatalf("cut: %q %q", nodes[0].alive(), nodes[2].alive())
		}
		w.net.set(func() { w.net.cut = func(a, b string) bool { return false } })
		start := time.Now()
		w.eventually(40*time.Second, "healed", all("1 2 3 4", nodes...))
		t.Logf("healed after %v", time.Since(start))
		if !one(nodes...)() {
			t.Error("two clusters")
		}
	})
}

// What a node says of itself comes through, also when several changes come at once, or the word of one was lost.
func TestChangesAreTold(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			defer w.close()
			nodes := three(w, nil)
			told := func(id int, slot int, draining bool) func() bool {
				return func() bool {
					for _, n := range nodes {
						if info, ok := n.View().Find(nodeID(id)); !ok || info.Slot != slot || info.Draining != draining {
							return false
						}
					}
					return true
				}
			}
			var both sync.WaitGroup
			both.Go(func() { nodes[0].SetSlot(4) })
			both.Go(func() { nodes[0].SetDraining(true) })
			both.Wait()
			w.eventually(5*time.Second, "both changes are told", told(1, 4, true))
			nodes[1].slot.Store(5) // without a word
			w.eventually(5*time.Second, "a lost word is said again", told(2, 5, false))
		})
	}
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
