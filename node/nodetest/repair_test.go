package nodetest

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/record"
	"kai/node/ring"
)

// A node that was down takes over what it missed, deletions too, and then nothing differs.
func TestRepairConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCluster(Config{Seed: 1, Nodes: 3, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 4, Timeout: time.Second})
		run := func(kind record.OpKind, value string) {
			s := c.nodes[0].current().coordinator.Session()
			defer s.Close()
			for i := range 40 {
				op := record.Op{Kind: kind, Key: fmt.Appendf(nil, "key%d", i), Value: []byte(value)}
				if kind == record.Delete && i%2 == 0 {
					op.Kind, op.Value = record.Set, []byte("kept")
				}
				var res [1]record.Result
				// Of a mutation that goes to the node that is down first, nobody knows the outcome.
				s.Execute([]record.Op{op}, res[:])
				if st := res[0].Status; st != record.Stored && st != record.Deleted && st != record.NotFound && st != record.Unknown {
					t.Fatalf("key %d: %d %s", i, st, res[0].Detail)
				}
			}
			time.Sleep(time.Second)
		}
		run(record.Set, "old")
		c.crash(2)
		run(record.Set, "new")
		run(record.Delete, "")
		c.start(2)
		differ := func() (n uint64) {
			for key, enc := range c.nodes[0].disk.records {
				if record.PeekBallot(enc) != record.PeekBallot(c.nodes[2].disk.records[key]) {
					n++
				}
			}
			return n
		}
		missed := differ()
		if missed < 20 {
			t.Fatalf("the node that was down has missed %d records only", missed)
		}
		r := c.nodes[2].current().repairer
		if n := r.Pass(t.Context()); n == 0 {
			t.Error("no difference found")
		}
		if n := differ(); n != 0 {
			t.Errorf("%d records still differ after a pass", n)
		}
		if n := r.Pass(t.Context()); n != 0 {
			t.Errorf("%d leaves differ after a pass", n)
		}
		if n := r.Counters(); n.Taken.Load()+n.Reconciled.Load() < missed {
			t.Errorf("%d records taken over, %d with others' help, %d missed", n.Taken.Load(), n.Reconciled.Load(), missed)
		}
		deleted := 0
		for key, enc := range c.nodes[2].disk.records {
			var rec record.Record
			if err := record.Decode([]byte(key), enc, &rec); err != nil {
				t.Fatal(err)
			}
			if rec.Kind == record.Tombstone {
				deleted++
			}
		}
		if deleted < 8 {
			t.Errorf("%d deleted records", deleted)
		}
		for i := range c.nodes {
			c.crash(i)
		}
		time.Sleep(5 * time.Second)
	})
}

// A state that one replica alone accepted, and that a member which restarted must not accept any more, does not keep the
// replicas apart for ever. (A quorum read need not meet it: of three replicas the two that hold the older state may answer
// first, each time. Two halves of a cluster that were cut apart once left such a key.)
func TestRepairEndsAMinority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCluster(Config{Seed: 1, Nodes: 3, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 1, Timeout: time.Second})
		defer c.end()
		key := func(i int) string { return fmt.Sprint("key", i) }
		for i := range 40 {
			c.set(t, 0, key(i), "old")
		}
		time.Sleep(time.Second)
		for i := range 40 {
			c.learn(t, 2, key(i), "minority")
		}
		c.crash(0)
		c.crash(1)
		c.start(0)
		c.start(1)
		time.Sleep(time.Second)
		reconciled := false
		for range 3 {
			for _, n := range c.nodes {
				r := n.current().repairer
				r.Pass(t.Context())
				reconciled = reconciled || r.Counters().Reconciled.Load() > 0
			}
		}
		if !reconciled {
			t.Error("no promise was in the way")
		}
		for i, n := range c.nodes {
			if diverged := n.current().repairer.Pass(t.Context()); diverged != 0 {
				t.Errorf("node %d: %d leaves differ", i, diverged)
			}
		}
	})
}
