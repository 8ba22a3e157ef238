package nodetest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"kai/node/placement"
	"kai/node/record"
	"kai/node/ring"
)

// TestLarge is TestSim with 256 nodes: LARGE histories of each scenario (default 1), from SEED on.
func TestLarge(t *testing.T) {
	for _, s := range largeScenarios() {
		if strings.Contains(s.Name, os.Getenv("ONLY")) {
			t.Run(s.Name, func(t *testing.T) { playAndJudge(t, s, envInt("LARGE", 1)) })
		}
	}
}

// TestLargeClusterGrowsAndShrinks has the real planner move what must move when a 256th node joins and
// when one is lost for good, while clients go on; LARGE times, from SEED on.
func TestLargeClusterGrowsAndShrinks(t *testing.T) {
	for seed := range uint64(envInt("LARGE", 1)) {
		var h *history
		synctest.Test(t, func(t *testing.T) { h = growAndShrink(t, uint64(envInt("SEED", 0))+seed) })
		if verdict := judge(h.sorted(), 3*time.Minute); verdict != porcupine.Ok {
			t.Errorf("seed %d: %d operations: %s", seed, len(h.ops), verdict)
		}
		t.Logf("%d operations, %d unknown, %d not applied", len(h.ops), h.unknown, h.denied)
	}
}

func growAndShrink(t *testing.T, seed uint64) *history {
	s := with(base(""), large)
	s.Config.Seed, s.Config.Founders, s.Config.Moving, s.Config.Plan = seed, 255, true, true
	s.Config.Faults, s.Config.Tick = Faults{Drop: 1, Slow: 3}, 200*time.Millisecond // as whole nodes have it
	c := NewCluster(s.Config)
	defer time.Sleep(5 * time.Second) // timers and lanes end
	defer func() {
		for i := range c.nodes {
			c.crash(i)
		}
	}()
	h, stop := &history{start: time.Now()}, make(chan struct{})
	clients := c.keepAsking(h, s.Load, stop)
	defer clients.Wait()
	defer close(stop)

	all := make([]ring.Weighted, 256)
	for i := range all {
		all[i].ID = nodeID(i)
	}
	began, before := time.Now(), c.stable()
	c.holders.Store(&all)
	after := c.settle(t)
	checkMoves(t, "one node more", before, after, all, time.Since(began))

	lost := 200
	c.crash(lost)
	survivors := slices.DeleteFunc(slices.Clone(all), func(n ring.Weighted) bool { return n.ID == nodeID(lost) })
	began, before = time.Now(), after
	c.holders.Store(&survivors)
	checkMoves(t, "one node lost", before, c.settle(t), survivors, time.Since(began))
	return h
}

// keepAsking has clients work until stop is closed.
func (c *Cluster) keepAsking(h *history, load Load, stop <-chan struct{}) *sync.WaitGroup {
	var clients sync.WaitGroup
	for i := range load.Clients {
		clients.Go(func() {
			cl := &client{c: c, h: h, id: i, r: rng{seed: mix(c.seed, 77, uint64(i))}, load: load, seen: map[string]record.Version{}}
			for round := 1; ; round++ {
				cl.load.Ops = round * 5
				cl.run()
				select {
				case <-stop:
					return
				case <-time.After(500 * time.Millisecond):
				}
			}
		})
	}
	return &clients
}

// stable is the configuration of each partition by the first node, nil if any partition moves.
func (c *Cluster) stable() []ring.Configuration {
	confs := c.nodes[0].current().configurations()
	if slices.ContainsFunc(confs, func(c ring.Configuration) bool { return len(c.Next) > 0 }) {
		return nil
	}
	return confs
}

// settle waits until nothing moves or is to move, and all nodes know it.
func (c *Cluster) settle(t *testing.T) []ring.Configuration {
	t.Helper()
	for start := time.Now(); time.Since(start) < 2*time.Minute; time.Sleep(100 * time.Millisecond) {
		confs := c.stable()
		if confs == nil || !c.wants(confs) || !c.agree(confs) {
			continue
		}
		return confs
	}
	t.Fatalf("moves have not ended: %s", c.unsettled())
	return nil
}

// wants reports whether confs is what a plan for the holders wants.
func (c *Cluster) wants(confs []ring.Configuration) bool {
	holders := *c.holders.Load()
	for p, list := range placement.Plan(confs, make([][]ring.NodeID, len(confs)), holders, c.Quorum.N) {
		if !slices.Equal(list, confs[p].Members) {
			return false
		}
	}
	return true
}

// agree reports whether all nodes that run know these configurations.
func (c *Cluster) agree(confs []ring.Configuration) bool {
	for _, n := range c.nodes {
		inc := n.current()
		if !inc.alive() {
			continue
		}
		for p := range confs {
			if inc.table.Configuration(ring.Partition(p)).Epoch != confs[p].Epoch {
				return false
			}
		}
	}
	return true
}

// unsettled says which partitions are not where they should be, or not known to all.
func (c *Cluster) unsettled() (s string) {
	confs := c.nodes[0].current().configurations()
	for p, list := range placement.Plan(confs, make([][]ring.NodeID, len(confs)), *c.holders.Load(), c.Quorum.N) {
		if !slices.Equal(list, confs[p].Members) {
			s += fmt.Sprintf("\npartition %d: %+v, wanted at %v", p, confs[p], list)
		}
		for _, n := range c.nodes {
			if own := n.current().table.Configuration(ring.Partition(p)); n.current().alive() && own.Epoch != confs[p].Epoch {
				s += fmt.Sprintf("\npartition %d: epoch %d, node %d has %+v", p, confs[p].Epoch, n.index, own)
			}
		}
	}
	return s
}

// checkMoves holds the change against what it should have cost, and its end against the bound.
func checkMoves(t *testing.T, what string, before, after []ring.Configuration, holders []ring.Weighted, took time.Duration) {
	t.Helper()
	held, moved, missing := map[ring.NodeID]int{}, 0, 0
	for p := range after {
		for _, id := range after[p].Members {
			held[id]++
			if !slices.Contains(before[p].Members, id) {
				moved++
			}
		}
		for _, id := range before[p].Members {
			if !slices.ContainsFunc(holders, func(n ring.Weighted) bool { return n.ID == id }) {
				missing++
			}
		}
	}
	replicas, most := 3*len(after), 0
	for _, n := range holders {
		most = max(most, held[n.ID])
	}
	mean := float64(replicas) / float64(len(holders))
	ideal := max(missing, replicas/len(holders)) // what the dead node held, or a newcomer's share
	t.Logf("%s: %d replicas moved, ideal %d; a node holds %d at most, %.2f in the mean; %v", what, moved, ideal, most, mean, took)
	if moved < missing || moved > ideal+ideal/4 {
		t.Errorf("%s: %d replicas moved, ideal %d", what, moved, ideal)
	}
	if float64(most) > max(mean*(1+placement.Slack), mean+1) {
		t.Errorf("%s: a node holds %d partitions, the mean is %.2f", what, most, mean)
	}
	if len(held) != len(holders) {
		t.Errorf("%s: %d nodes hold something, not %d", what, len(held), len(holders))
	}
}
