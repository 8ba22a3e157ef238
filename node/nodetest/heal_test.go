package nodetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"kai/node/record"
	"kai/node/ring"
)

// Nodes that were cut off for ten minutes, under load, hold what the others hold within a minute of healing.
func TestTenMinutePartitionHeals(t *testing.T) {
	for name, lonely := range map[string][]int{"one alone": {3}, "two and two": {2, 3}} {
		for seed := range uint64(5) {
			t.Run(fmt.Sprintf("%s, seed %d", name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { tenMinutes(t, lonely, seed) })
			})
		}
	}
}

func tenMinutes(t *testing.T, lonely []int, seed uint64) {
	c := NewCluster(Config{Seed: seed, Nodes: 4, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 8, Timeout: 400 * time.Millisecond,
		Faults: Faults{Drop: 1, Slow: 3}, Repairing: true, RepairPause: 30 * time.Second})
	h := &history{start: time.Now()}
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			cl := &client{c: c, h: h, id: i, r: rng{seed: mix(seed, 77, uint64(i))}, seen: map[string]record.Version{},
				load: Load{Clients: 4, Ops: 400, Keys: 60, Gap: 3 * time.Second}}
			cl.run()
		})
	}
	cut := func(on bool) {
		for a := range c.nodes {
			for b := range c.nodes {
				if slices.Contains(lonely, a) != slices.Contains(lonely, b) {
					c.net.setCut(a, b, on)
				}
			}
		}
	}
	time.Sleep(time.Minute)
	cut(true)
	time.Sleep(10 * time.Minute)
	clients.Wait() // they were at it all the while, or are still
	missed := c.differing()
	cut(false)
	time.Sleep(time.Minute)
	if n := c.differing(); n > 0 || missed < 20 {
		t.Errorf("%d records differed when the network healed, %d a minute later", missed, n)
	}
	t.Logf("%d records differed when the network healed; %d operations, %d unknown, %d not applied", missed, len(h.ops), h.unknown, h.denied)
	for _, n := range c.nodes {
		c.crash(n.index)
	}
	time.Sleep(5 * time.Second)
	c.net.checkUsedUp()
	if v := judge(h.sorted(), 3*time.Minute); v != porcupine.Ok {
		t.Errorf("history: %v", v)
	}
}

// differing counts the records that not all members of their partitions hold at the same ballot.
func (c *Cluster) differing() (count int) {
	for _, n := range c.nodes {
		n.disk.mu.Lock()
		defer n.disk.mu.Unlock()
	}
	for _, n := range c.nodes {
		for key, enc := range n.disk.records {
			members := c.newest[n.disk.of[key]].Members
			if slices.ContainsFunc(c.nodes, func(o *node) bool {
				return slices.Contains(members, o.id) && record.PeekBallot(o.disk.records[key]) != record.PeekBallot(enc)
			}) {
				count++
			}
		}
	}
	return count
}
