package quorum

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Scan implements replica.Scanner.
func (m *memory) Scan(p ring.Partition, after []byte, fn func(key, enc []byte) error) error {
	m.mu.Lock()
	records := maps.Clone(m.records)
	for k, enc := range records { // Put overwrites in place
		records[k] = bytes.Clone(enc)
	}
	m.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(records)) {
		if ring.PartitionOf(ring.Hash([]byte(k)), partitions) != p || bytes.Compare([]byte(k), after) <= 0 {
			continue
		}
		if err := fn([]byte(k), records[k]); err != nil {
			return err
		}
	}
	return nil
}

// cold sets keys that nobody wrote before at node i, and tells how many prepares that took.
func (r *rig) cold(i int, name string, n int) (prepares uint64) {
	r.t.Helper()
	before := uint64(0)
	count := func() (sum uint64) {
		for _, nd := range r.nodes {
			sum += nd.replica.Counters().Prepares.Load()
		}
		return sum
	}
	before = count()
	for k := range n {
		res := r.do(i, record.Op{Kind: record.Set, Key: fmt.Appendf(nil, "%s%d", name, k), Value: []byte("v")})
		if res.Status != record.Stored {
			r.t.Fatalf("set %d: %d %s", k, res.Status, res.Detail)
		}
		time.Sleep(time.Millisecond) // the third replica's answer
	}
	return count() - before
}

func TestColdKeysNeedNoPrepare(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, ring.Quorum{N: 3, R: 2, W: 2})
		if n := r.cold(0, "first", 4*wideAfter+100); n < 3*wideAfter {
			t.Fatalf("%d prepares before anything was promised", n)
		}
		time.Sleep(2 * widePause)
		if n := r.cold(0, "second", 200); n > 3*30 { // of 3 replicas
			t.Errorf("%d prepares for 200 cold keys", n)
		}
		wides := r.nodes[0].Counters().Wides.Load()
		if wides == 0 || wides > 2*partitions {
			t.Errorf("%d promises of %d partitions asked for", wides, partitions)
		}
		// The values are there for others, and what others write is met.
		r.want("read elsewhere", r.do(1, record.Op{Kind: record.Get, Key: []byte("second7")}), record.Found, "v")
		for i, nd := range r.nodes {
			nd.mustHold(t, i, "second7")
		}
	})
}

func (nd *node) mustHold(t *testing.T, i int, key string) {
	nd.disk.mu.Lock()
	defer nd.disk.mu.Unlock()
	if len(nd.disk.records[key]) == 0 {
		t.Errorf("node %d does not hold %s", i, key)
	}
}

// promised gets node i a promise of key's partition, and leaves no sticky state behind.
func (r *rig) promised(i int) *wide {
	r.t.Helper()
	nd := r.nodes[i]
	p, g := nd.group(ring.Hash(key))
	w := nd.widen(p, g)
	if w == nil {
		r.t.Fatal("no promise")
	}
	(*nd.wides.parts.Load())[p].now.Store(w)
	nd.sticky.take(ring.Hash(key))
	return w
}

func TestPromiseOfAPartition(t *testing.T) {
	leaf := message.Leaf(ring.Hash(key))
	quorum := ring.Quorum{N: 3, R: 2, W: 2}
	t.Run("starts from what the replicas hold alike", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := newRig(t, 3, quorum)
			r.want("set", r.do(1, set("5")), record.Stored, "")
			time.Sleep(timeout)
			if !r.promised(0).clean.Has(leaf) {
				t.Fatal("the leaf is not clean")
			}
			before := r.nodes[0].Counters().WideRounds.Load()
			if res := r.do(0, incr()); res.Status != record.Counted || res.Number != 6 {
				t.Errorf("incr: %+v", res)
			}
			if r.nodes[0].Counters().WideRounds.Load() != before+1 {
				t.Error("the promise was not used")
			}
			time.Sleep(timeout)
			r.want("read elsewhere", r.do(2, get()), record.Found, "6")
		})
	})
	t.Run("where this node's replica is behind it is no help", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := newRig(t, 3, quorum)
			r.want("set", r.do(1, set("1")), record.Stored, "")
			time.Sleep(timeout)
			r.nodes[1].wires[0].answer(message.Unreachable)
			r.want("set behind its back", r.do(1, set("5")), record.Stored, "")
			r.nodes[1].wires[0].heal()
			if r.promised(0).clean.Has(leaf) {
				t.Fatal("the leaf counts as clean")
			}
			if res := r.do(0, incr()); res.Status != record.Counted || res.Number != 6 {
				t.Errorf("incr: %+v", res)
			}
		})
	})
	t.Run("a rival that was promised more is met", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := newRig(t, 3, quorum)
			r.want("set", r.do(0, set("1")), record.Stored, "")
			time.Sleep(timeout)
			r.promised(0)
			r.nodes[1].wires[0].answer(message.Unreachable)
			r.nodes[1].Coordinator.sticky.take(ring.Hash(key))
			// As if node 0 were dead to node 1, which takes the mutation itself.
			m := &mutation{op: set("7"), hash: ring.Hash(key), deadline: time.Now().Add(timeout), done: make(rewritten, 1)}
			r.nodes[1].submit(0, m, true, nil)
			r.nodes[1].wires[0].heal()
			if m.res.Status != record.Stored {
				t.Fatalf("%+v", m.res)
			}
			if res := r.do(0, incr()); res.Status != record.Counted || res.Number != 8 {
				t.Errorf("incr: %+v", res)
			}
		})
	})
	t.Run("another one for all ends it", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := newRig(t, 3, quorum)
			r.want("set", r.do(0, set("1")), record.Stored, "")
			time.Sleep(timeout)
			mine := r.promised(0)
			r.promised(1)
			r.want("set", r.do(0, set("2")), record.Stored, "")
			if mine.nacks.Load() != 1 {
				t.Errorf("%d refusals", mine.nacks.Load())
			}
			r.want("read", r.do(1, get()), record.Found, "2")
		})
	})
}
