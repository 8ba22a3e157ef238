package nodetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/message"
	"kai/node/placement"
	"kai/node/record"
	"kai/node/ring"
)

// ask runs one command at node i, and tries again while the outcome is not known.
func (c *Cluster) ask(t *testing.T, i int, op record.Op) record.Result {
	t.Helper()
	s := c.nodes[i].current().coordinator.Session()
	defer s.Close()
	var res [1]record.Result
	for range 5 {
		s.Execute([]record.Op{op}, res[:])
		if st := res[0].Status; st != record.Unknown && st != record.Unavailable {
			break
		}
	}
	res[0].Value = bytes.Clone(res[0].Value)
	return res[0]
}

func (c *Cluster) want(t *testing.T, i int, key, value string) {
	t.Helper()
	if r := c.ask(t, i, record.Op{Kind: record.Get, Key: []byte(key)}); r.Status != record.Found || string(r.Value) != value {
		t.Errorf("node %d reads %s as %q (status %d, %s), want %q", i, key, r.Value, r.Status, r.Detail, value)
	}
}

func (c *Cluster) set(t *testing.T, i int, key, value string) {
	t.Helper()
	if r := c.ask(t, i, record.Op{Kind: record.Set, Key: []byte(key), Value: []byte(value)}); r.Status != record.Stored {
		t.Fatalf("node %d cannot set %s: status %d %s", i, key, r.Status, r.Detail)
	}
}

// lost looks at partition 0 from node i, with those gone that are dead.
func (c *Cluster) lost(i int) (placement.Loss, bool) {
	alive := func(id ring.NodeID) bool {
		return slices.ContainsFunc(c.nodes, func(n *node) bool { return n.id == id && n.current().alive() })
	}
	return placement.Lost(c.nodes[i].current().table.Configuration(0), c.Quorum, func(id ring.NodeID) bool { return !alive(id) }, alive)
}

// recover has node i recover partition 0 from those that survive.
func (c *Cluster) recover(t *testing.T, i int, next ...ring.NodeID) ring.Configuration {
	t.Helper()
	loss, lost := c.lost(i)
	if !lost {
		t.Fatalf("node %d has nothing to recover: %+v", i, c.nodes[i].current().table.Configuration(0))
	}
	if len(next) == 0 {
		next = loss.Survivors
	}
	inc := c.nodes[i].current()
	conf, err := inc.mover.Recover(t.Context(), 0, inc.table.Configuration(0), uint16(i), loss.Survivors, next)
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

func (c *Cluster) end() {
	for i := range c.nodes {
		c.crash(i)
	}
	time.Sleep(10 * time.Second)
}

// Two of three replicas are gone: there is no quorum before a recovery, and there is after it, with what the
// survivor has. The partition grows again by ordinary moves. A node that comes back serves nothing of the old
// generation, and learns of the new one.
func TestRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCluster(Config{Seed: 1, Nodes: 5, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 1, Timeout: time.Second, Moving: true, Gossiping: true})
		defer c.end()
		for k := range 20 {
			c.set(t, 0, fmt.Sprint("key", k), "old")
		}
		time.Sleep(time.Second)
		if _, lost := c.lost(3); lost {
			t.Fatal("lost, though nothing has happened")
		}
		c.crash(1)
		if _, lost := c.lost(3); lost {
			t.Fatal("lost, though there is a quorum")
		}
		c.set(t, 0, "late", "by two")
		c.crash(2)
		if r := c.ask(t, 3, record.Op{Kind: record.Get, Key: []byte("key0")}); r.Status != record.Unavailable {
			t.Fatalf("read without a quorum: %+v", r)
		}
		conf := c.recover(t, 3) // by a node that holds nothing
		if placement.Generation(conf.Epoch) != 1 || !slices.Equal(conf.Members, []ring.NodeID{nodeID(0)}) {
			t.Fatalf("recovered as %+v", conf)
		}
		time.Sleep(time.Second)
		c.want(t, 4, "key0", "old")
		c.want(t, 4, "late", "by two")
		c.set(t, 4, "key1", "new")
		// It grows.
		if err := c.nodes[0].current().mover.Move(t.Context(), 0, []ring.NodeID{nodeID(0), nodeID(3), nodeID(4)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if now := c.nodes[0].current().table.Configuration(0); len(now.Members) != 3 || len(now.Next) > 0 || placement.Generation(now.Epoch) != 1 {
			t.Fatalf("after the move: %+v", now)
		}
		c.crash(0)
		c.want(t, 3, "key1", "new")
		c.want(t, 4, "key2", "old")
		// Both that were gone come back. They were a quorum, and must not be one any more once they have met anybody.
		c.start(0) // a member of the new generation
		c.start(1)
		c.start(2)
		for _, i := range []int{1, 2} {
			inc := c.nodes[i].current()
			if got := inc.table.Configuration(0); got.Epoch != 1 {
				t.Fatalf("node %d knows %+v though nobody told it", i, got)
			}
		}
		time.Sleep(5 * time.Second)
		for _, i := range []int{1, 2} {
			if s := c.read(i, "key1", 1); s != message.WrongEpoch {
				t.Errorf("node %d answers an old read with %s", i, s)
			}
			c.want(t, i, "key1", "new")
			c.set(t, i, "key3", fmt.Sprint("by ", i))
			c.want(t, 4, "key3", fmt.Sprint("by ", i))
		}
	})
}

// read asks node i's replica for a key as a coordinator of that epoch does.
func (c *Cluster) read(i int, key string, epoch uint32) message.Status {
	done := make(chan message.Status, 1)
	call := &message.Call{Completion: completion(func(call *message.Call) { done <- call.Reply.Status })}
	call.Request = message.Request{Kind: message.Read, Epoch: epoch, Key: []byte(key), Hash: ring.Hash([]byte(key))}
	c.nodes[i].current().replica.Send(call)
	return <-done
}

// A node that comes back alone learns of the new generation, and does not serve the old one.
func TestRecoverMeetsAReturningNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCluster(Config{Seed: 2, Nodes: 3, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 1, Timeout: time.Second, Moving: true, Gossiping: true})
		defer c.end()
		c.set(t, 0, "key", "old")
		time.Sleep(time.Second)
		c.crash(1)
		c.crash(2)
		c.recover(t, 0)
		c.set(t, 0, "key", "new")
		c.start(2)
		time.Sleep(5 * time.Second)
		c.want(t, 2, "key", "new")
		if s := c.read(2, "key", 1); s != message.WrongEpoch {
			t.Errorf("it answers an old read with %s", s)
		}
	})
}

// With three survivors a read quorum is two of them: what only the third holds must not hide. (Without the gathering
// this fails.)
func TestRecoverGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCluster(Config{Seed: 3, Nodes: 5, Quorum: ring.Quorum{N: 5, R: 2, W: 4}, Partitions: 1, Timeout: time.Second, Moving: true, Gossiping: true})
		defer c.end()
		for k := range 30 {
			c.set(t, 0, fmt.Sprint("key", k), "old")
		}
		time.Sleep(time.Second)
		// The newest of each key is at one of the survivors, and at nodes that are gone.
		want := map[string]string{}
		for k := range 30 {
			key := fmt.Sprint("key", k)
			want[key] = fmt.Sprint("new", k)
			c.learn(t, k%3, key, want[key])
		}
		c.crash(3)
		c.crash(4)
		if r := c.ask(t, 0, record.Op{Kind: record.Set, Key: []byte("key0"), Value: []byte("x")}); r.Status == record.Stored {
			t.Fatal("written with three of four")
		}
		conf := c.recover(t, 1)
		if len(conf.Members) != 3 {
			t.Fatalf("recovered as %+v", conf)
		}
		time.Sleep(time.Second)
		for k := 1; k < 30; k++ { // key0 was written at last, by who knows whom
			for i := range 3 {
				c.want(t, i, fmt.Sprint("key", k), want[fmt.Sprint("key", k)])
			}
		}
	})
}

// learn puts a newer state of key into node i alone, as an accept would that reached only it and the gone.
func (c *Cluster) learn(t *testing.T, i int, key, value string) {
	t.Helper()
	inc := c.nodes[i].current()
	enc, found, err := inc.volume.Get(nil, 0, ring.Hash([]byte(key)), []byte(key))
	var rec record.Record
	if err != nil || !found || record.Decode([]byte(key), enc, &rec) != nil {
		t.Fatalf("%s is not at node %d: %v", key, i, err)
	}
	rec.Value = []byte(value)
	rec.Ballot.Stamp += 1 << 20
	done := make(chan message.Status, 1)
	call := &message.Call{Completion: completion(func(call *message.Call) { done <- call.Reply.Status })}
	call.Request = message.Request{Kind: message.Accept, Epoch: 1, Key: []byte(key), Hash: ring.Hash([]byte(key)), Record: record.Append(nil, []byte(key), &rec)}
	go inc.replica.Learn(call)
	if s := <-done; s != message.OK {
		t.Fatalf("node %d does not learn %s: %s", i, key, s)
	}
}

// Two nodes recover the same partition at once, each for itself: one of the two generations wins everywhere. What is
// written before both know of it may go to the other, and be lost with it: DESIGN.md of node/placement says so.
func TestRivalRecoveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCluster(Config{Seed: 4, Nodes: 5, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 1, Timeout: time.Second, Moving: true, Gossiping: true})
		defer c.end()
		for _, i := range []int{0, 1, 2} {
			c.crash(i)
		}
		won := make(chan ring.Configuration, 2)
		for _, i := range []int{3, 4} {
			go func() { won <- c.recover(t, i, nodeID(i)) }()
		}
		a, b := <-won, <-won
		if a.Epoch == b.Epoch {
			t.Fatalf("two configurations of one epoch: %+v %+v", a, b)
		}
		time.Sleep(time.Second) // each hears of the other
		c.set(t, 3, "key", "value")
		time.Sleep(time.Second)
		for _, i := range []int{3, 4} {
			if got := c.nodes[i].current().table.Configuration(0); got.Epoch != max(a.Epoch, b.Epoch) {
				t.Errorf("node %d goes by %+v", i, got)
			}
			c.want(t, i, "key", "value")
		}
	})
}

// What is decided is decided: a recovery that finds another configuration does nothing.
func TestRecoverRefusesWhatHasMovedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewCluster(Config{Seed: 5, Nodes: 3, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 1, Timeout: time.Second, Moving: true, Gossiping: true})
		defer c.end()
		inc := c.nodes[0].current()
		old := inc.table.Configuration(0)
		inc.adopt(0, ring.Configuration{Epoch: 3, Members: old.Members})
		time.Sleep(time.Second)
		got, err := inc.mover.Recover(t.Context(), 0, old, 0, []ring.NodeID{nodeID(0)}, []ring.NodeID{nodeID(0)})
		if !errors.Is(err, placement.ErrNotRecovered) || got.Epoch != 3 || inc.table.Configuration(0).Epoch != 3 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
