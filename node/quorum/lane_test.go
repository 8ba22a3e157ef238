package quorum

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

func hashOf(key []byte) uint64 { return ring.Hash(key) }

// waiter is a mutation without a session.
type waiter struct {
	mutation
	heard int
}

func (w *waiter) mutated(*mutation) { w.heard++ }

func newWaiter(o record.Op) *waiter {
	w := &waiter{}
	w.mutation = mutation{op: o, hash: hashOf(o.Key), deadline: time.Now().Add(timeout), done: w}
	return w
}

// submitAll hands all to node 0's lane while its first round is held up, and lets it go on.
func (r *rig) submitAll(ops ...record.Op) []*waiter {
	all := make([]*waiter, len(ops))
	p, _ := r.nodes[0].group(hashOf(key))
	r.each(0, []int{1, 2}, func(w *wire) { w.answer(keep) })
	for i, o := range ops {
		all[i] = newWaiter(o)
		r.nodes[0].submit(p, &all[i].mutation, false, nil)
		if i == 0 {
			synctest.Wait()
		}
	}
	r.each(0, []int{1, 2}, func(w *wire) { w.release() })
	synctest.Wait()
	return all
}

// Those who wait on one key share the next round, and each hears its own result.
func TestFolding(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.do(0, set("0"))
		before := r.nodes[0].Counters().Rounds.Load()
		const n = 200
		ops := make([]record.Op, n)
		for i := range ops {
			ops[i] = incr()
		}
		for i, w := range r.submitAll(ops...) {
			if w.heard != 1 || w.res.Status != record.Counted || w.res.Number != uint64(i+1) {
				t.Fatalf("%d: heard %d times: %+v", i, w.heard, w.res)
			}
		}
		if rounds := r.nodes[0].Counters().Rounds.Load() - before; rounds > 3 {
			t.Errorf("%d rounds", rounds)
		}
		if folded := r.nodes[0].Counters().Folded.Load(); folded != n-1 {
			t.Errorf("%d folded", folded)
		}
		r.want("get", r.do(1, get()), record.Found, fmt.Sprint(n))
		if got := r.state(0); len(got.Recent) > 3 {
			t.Errorf("%d versions for a few rounds", len(got.Recent))
		}
	})
}

// More than fit into one round share several.
func TestFoldsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.do(0, set("0"))
		ops := make([]record.Op, 2*maxFold+2)
		for i := range ops {
			ops[i] = incr()
		}
		all := r.submitAll(ops...)
		if last := all[len(all)-1].res; last.Number != uint64(len(ops)) {
			t.Errorf("last: %+v", last)
		}
	})
}

// A failed fold is retried as a whole, whatever its members would answer.
func TestFoldIsRetried(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.do(0, set("0"))
		lost := 0
		r.nodes[0].wires[0].setHook(func(c *message.Call) message.Status {
			if c.Kind == message.Accept && lost < 2 {
				lost++
				return message.TimedOut
			}
			return deliver
		})
		p, _ := r.nodes[0].group(hashOf(key))
		r.each(0, []int{1, 2}, func(w *wire) { w.answer(keep) })
		var all []*waiter
		for i, o := range []record.Op{incr(), incr(), op(record.Add, "x"), op(record.Set, "7"), incr()} {
			w := newWaiter(o)
			all = append(all, w)
			r.nodes[0].submit(p, &w.mutation, false, nil)
			if i == 0 {
				synctest.Wait()
			}
		}
		r.each(0, []int{1, 2}, func(w *wire) { w.release() })
		time.Sleep(timeout)
		synctest.Wait()
		for i, want := range []record.Result{{Status: record.Counted, Number: 1}, {Status: record.Counted, Number: 2},
			{Status: record.NotStored}, {Status: record.Stored}, {Status: record.Counted, Number: 8}} {
			if got := all[i].res; got.Status != want.Status || got.Number != want.Number || all[i].heard != 1 {
				t.Errorf("%d: heard %d times %+v, want %+v", i, all[i].heard, got, want)
			}
		}
		r.want("get", r.do(1, get()), record.Found, "8")
	})
}

// A lane that nobody serves fast enough fills up; then it refuses, at once.
func TestLaneOverflow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		ops := make([]record.Op, maxLane+3) // one is in the round
		for i := range ops {
			ops[i] = set(fmt.Sprint(i))
		}
		all := r.submitAll(ops...)
		for i, w := range all {
			want := record.Stored
			if i > maxLane {
				want = record.Unavailable
			}
			if w.heard != 1 || w.res.Status != want {
				t.Fatalf("%d: heard %d times: %+v", i, w.heard, w.res)
			}
		}
		r.want("get", r.do(1, get()), record.Found, fmt.Sprint(maxLane))
	})
}

// A lane ends with its last mutation.
func TestLanesEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		for i := range 100 {
			o := set("v")
			o.Key = fmt.Append(nil, i)
			r.do(i%3, o)
		}
		synctest.Wait()
		for _, nd := range r.nodes {
			for i := range nd.lanes.shards {
				s := &nd.lanes.shards[i]
				s.mu.Lock()
				if n := len(s.more); n != 0 || s.lanes != [3]*lane{} {
					t.Errorf("%d lanes left", n)
				}
				s.mu.Unlock()
			}
		}
	})
}

// Mutations of one fold share a version, which is their cas token: see foldable.
func TestFoldable(t *testing.T) {
	s, g, gat, touch, d := record.Set, record.Get, record.GetAndTouch, record.Touch, record.Delete
	for _, c := range []struct {
		kinds []record.OpKind
		want  int
	}{
		{[]record.OpKind{s}, 1},
		{[]record.OpKind{s, s, d, s}, 4},
		{[]record.OpKind{g, gat, touch, s, s}, 5}, // what is shown is the former version
		{[]record.OpKind{s, gat}, 2},
		{[]record.OpKind{s, gat, g, touch, gat}, 5},
		{[]record.OpKind{s, gat, s}, 2},
		{[]record.OpKind{s, g, touch, d}, 3},
		{[]record.OpKind{touch, gat, s, gat, record.Add}, 4},
	} {
		var waiting []*mutation
		for _, k := range c.kinds {
			waiting = append(waiting, &mutation{op: record.Op{Kind: k}})
		}
		if got := foldable(waiting); got != c.want {
			t.Errorf("%v: %d, want %d", c.kinds, got, c.want)
		}
	}
	many := make([]*mutation, 2*maxFold)
	for i := range many {
		many[i] = &mutation{op: record.Op{Kind: s}}
	}
	if got := foldable(many); got != maxFold {
		t.Errorf("%d of many", got)
	}
}

// A token shown between two sets that wait together must not let a cas overwrite the second.
func TestTokensAreNotShared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		all := r.submitAll(set("zero"), set("one"), op(record.GetAndTouch, ""), set("two"))
		shown := all[2].res
		if shown.Status != record.Found || string(shown.Value) != "one" {
			t.Fatalf("gats: %+v", shown)
		}
		cas := op(record.CompareAndSwap, "mine")
		cas.CAS = shown.CAS
		r.want("cas", r.do(0, cas), record.Exists, "")
		r.want("get", r.do(1, get()), record.Found, "two")
	})
}

// Many clients at all nodes count one key up: every answer is another number, and none is missing.
func TestConcurrentCounting(t *testing.T) {
	r := newRig(t, 3, majority)
	for _, nd := range r.nodes { // real time: give it plenty
		nd.opts.Timeout = 20 * time.Second
	}
	r.do(0, set("0"))
	const clients, each = 6, 50
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			s := r.nodes[i%3].Session()
			defer s.Close()
			res := make([]record.Result, 2)
			for range each {
				s.Execute([]record.Op{incr(), get()}, res)
				mu.Lock()
				if res[0].Status != record.Counted || seen[res[0].Number] {
					t.Errorf("%+v, seen before: %v", res[0], seen[res[0].Number])
				}
				seen[res[0].Number] = true
				mu.Unlock()
				if res[1].Status != record.Found {
					t.Errorf("%+v", res[1])
				}
			}
		})
	}
	wg.Wait()
	r.want("get", r.do(0, get()), record.Found, fmt.Sprint(clients*each))
}

// A shard finds its lanes, however many it has, and whatever their hashes.
func TestLaneShard(t *testing.T) {
	if n := unsafe.Sizeof(laneShard{}); n != 64 {
		t.Errorf("a shard has %d bytes", n)
	}
	var s laneShard
	all := make([]*lane, 10)
	for round := range 3 {
		for i := range all {
			all[i] = &lane{hash: uint64(i % 2), key: fmt.Append(nil, "key", i)}
			if l := s.find(all[i].hash, all[i].key); l != nil {
				t.Fatalf("round %d: lane %d is there", round, i)
			}
			s.open(all[i])
		}
		for i := range all {
			l := all[(i*7+round)%len(all)]
			if s.find(l.hash, l.key) != l {
				t.Fatalf("round %d: %s is lost", round, l.key)
			}
			if s.close(l); s.find(l.hash, l.key) != nil {
				t.Fatalf("round %d: %s is kept", round, l.key)
			}
		}
	}
}
