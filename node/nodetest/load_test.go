package nodetest

import (
	"testing"
	"testing/synctest"
	"time"

	"kai/node/placement"
	"kai/node/record"
	"kai/node/ring"
)

// snapshot takes one of partition 0, whose cut is now.
func (c *Cluster) snapshot(t *testing.T) {
	t.Helper()
	s := &snapshot{cut: c.nodes[0].wall(), rows: make([][]item, 1)}
	r := rng{seed: c.seed}
	for range 40 {
		rows, err := c.upload(&r, 0)
		if err == nil {
			s.rows[0] = rows
			c.bucket.mu.Lock()
			c.bucket.complete = append(c.bucket.complete, s)
			c.bucket.mu.Unlock()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no snapshot")
}

// A new member is the first to follow a move. Before the old ones do, they may forget what has died, once a snapshot says so: the new member must not have
// chosen one of before by then.
func TestLoadWhileMembersForget(t *testing.T) {
	for _, without := range []placement.Rule{0, placement.RuleLookLate} {
		synctest.Test(t, func(t *testing.T) {
			c := NewCluster(Config{Seed: 1, Nodes: 4, Founders: 3, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 1, Timeout: time.Second, Moving: true,
				Repairing: true, PurgeAge: time.Millisecond, Snapshots: true, SlowLoads: true, WithoutMoving: without})
			defer c.end()
			c.set(t, 0, "stays", "here")
			c.set(t, 0, "dies", "alive")
			c.snapshot(t)
			time.Sleep(time.Second)
			if r := c.ask(t, 0, record.Op{Kind: record.Delete, Key: []byte("dies")}); r.Status != record.Deleted {
				t.Fatalf("not deleted: %+v", r)
			}
			now := c.nodes[0].current().table.Configuration(0)
			joint := ring.Configuration{Epoch: now.Epoch + 1, Members: now.Members, Next: []ring.NodeID{nodeID(0), nodeID(1), nodeID(3)}}
			key := placement.DecisionKey(0, joint.Epoch, 1)
			if _, err := c.nodes[0].current().coordinator.Decide(t.Context(), key, placement.AppendConfiguration(nil, joint)); err != nil {
				t.Fatal(err)
			}
			c.nodes[3].current().adopt(0, joint)
			time.Sleep(100 * time.Millisecond)
			if without != 0 { // else they follow by now, and are in no snapshot before the move ends
				c.snapshot(t)
			}
			time.Sleep(time.Second)
			if purged := c.nodes[0].current().repairer.Counters().Purged.Load(); purged > 0 != (without != 0) {
				t.Errorf("without rules %d: %d forgotten", without, purged)
			}
			c.crash(0) // the new member will be in every quorum
			time.Sleep(10 * time.Second)
			after := c.nodes[1].current().table.Configuration(0)
			if len(after.Next) > 0 || !after.Has(nodeID(3)) || c.nodes[3].current().mover.Counters().LoadedRecords.Load() == 0 {
				t.Fatalf("not moved, or nothing loaded: %+v", after)
			}
			c.want(t, 1, "stays", "here")
			r := c.ask(t, 1, record.Op{Kind: record.Get, Key: []byte("dies")})
			if back := r.Status == record.Found; back != (without != 0) {
				t.Errorf("without rules %d: status %d", without, r.Status)
			}
		})
	}
}

// What a recovery gave up does not come back with a snapshot.
func TestLoadAfterRecovery(t *testing.T) {
	for _, without := range []placement.Rule{0, placement.RuleGeneration} {
		synctest.Test(t, func(t *testing.T) {
			c := NewCluster(Config{Seed: 1, Nodes: 5, Founders: 3, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 1, Timeout: time.Second, Moving: true,
				Gossiping: true, Snapshots: true, WithoutMoving: without})
			defer c.end()
			c.set(t, 0, "key", "old")
			time.Sleep(time.Second)
			c.crash(2)
			c.set(t, 0, "key", "new")
			c.snapshot(t)
			c.crash(0)
			c.crash(1)
			c.start(2)
			time.Sleep(time.Second)
			c.recover(t, 3)
			time.Sleep(time.Second)
			c.want(t, 4, "key", "old")
			if err := c.nodes[2].current().mover.Move(t.Context(), 0, []ring.NodeID{nodeID(2), nodeID(3), nodeID(4)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			if now := c.nodes[2].current().table.Configuration(0); len(now.Members) != 3 || len(now.Next) > 0 {
				t.Fatalf("after the move: %+v", now)
			}
			c.crash(2)
			time.Sleep(time.Second)
			want := "old"
			if without != 0 {
				want = "new"
			}
			c.want(t, 4, "key", want)
		})
	}
}
