package quorum

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
)

func named(kind record.OpKind, k, v string) record.Op {
	return record.Op{Kind: kind, Key: []byte(k), Value: []byte(v)}
}

// Operations run side by side up to the first that meets an earlier one on its key, if one of the
// two mutates.
func TestSegments(t *testing.T) {
	g, s := record.Get, record.Set
	for _, c := range []struct {
		ops  []record.Op
		want int
	}{
		{[]record.Op{named(g, "a", "")}, 1},
		{[]record.Op{named(g, "a", ""), named(g, "a", ""), named(g, "b", "")}, 3},
		{[]record.Op{named(s, "a", ""), named(s, "b", ""), named(g, "c", "")}, 3},
		{[]record.Op{named(s, "a", ""), named(g, "a", "")}, 1},
		{[]record.Op{named(g, "a", ""), named(g, "b", ""), named(s, "a", "")}, 2},
		{[]record.Op{named(s, "a", ""), named(s, "b", ""), named(s, "a", ""), named(s, "c", "")}, 2},
		{[]record.Op{named(g, "a", ""), named(record.GetAndTouch, "a", "")}, 1},
	} {
		sess := (&Coordinator{}).Session()
		if got := sess.segment(c.ops); got != c.want || len(sess.slots) != got {
			t.Errorf("%v: %d side by side, want %d", c.ops, got, c.want)
		}
	}
	// Many keys: the quick look by bits must not miss a meeting.
	var many []record.Op
	for i := range 300 {
		many = append(many, named(s, fmt.Sprint(i), ""))
	}
	many = append(many, named(g, "77", ""))
	if got := (&Coordinator{}).Session().segment(many); got != 300 {
		t.Errorf("%d side by side, want 300", got)
	}
}

// A pipeline's operations on one key take effect in its order, wherever it is coordinated.
func TestBatchKeepsTheOrderOfAKey(t *testing.T) {
	for at := range 4 {
		bubble(t, func(t *testing.T) {
			r := newRig(t, 4, majority)
			s := r.nodes[at].Session()
			defer s.Close()
			ops := []record.Op{
				named(record.Get, "k", ""), named(record.Set, "k", "1"), named(record.Set, "other", "x"), named(record.Get, "k", ""),
				named(record.AppendTo, "k", "2"), named(record.Get, "k", ""), named(record.Get, "k", ""), named(record.Delete, "k", ""),
				named(record.Add, "k", "3"), named(record.Get, "other", ""), named(record.GetAndTouch, "k", ""),
			}
			want := []string{"2 ", "3 ", "3 ", "1 1", "3 ", "1 12", "1 12", "6 ", "3 ", "1 x", "1 3"}
			for range 2 {
				res := make([]record.Result, len(ops))
				s.Execute(ops, res)
				for i := range res {
					if got := fmt.Sprintf("%d %s", res[i].Status, res[i].Value); got != want[i] {
						t.Errorf("node %d, operation %d: %q, want %q (%s)", at, i, got, want[i], res[i].Detail)
					}
				}
				s.Execute([]record.Op{named(record.Delete, "k", "")}, res[:1])
			}
		})
	}
}

// A batch over many keys, of which the replicas hold every state there is.
func TestBatchOfManyKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 4, majority)
		s := r.nodes[3].Session()
		defer s.Close()
		const n = 200
		sets, gets := make([]record.Op, n), make([]record.Op, n+1)
		for i := range sets {
			sets[i] = named(record.Set, fmt.Sprint("key", i), fmt.Sprint("value", i))
			gets[i] = named(record.Get, fmt.Sprint("key", i), "")
		}
		gets[n] = named(record.Get, "absent", "")
		res := make([]record.Result, n+1)
		s.Execute(sets, res[:n])
		s.Execute(gets, res)
		for i := range n {
			if string(res[i].Value) != fmt.Sprint("value", i) {
				t.Errorf("key%d: %+v", i, res[i])
			}
		}
		if res[n].Status != record.NotFound {
			t.Errorf("absent: %+v", res[n])
		}
	})
}

// The gets of a segment ask the same replicas, as far as they can, and rather those that its mutations have something for.
func TestReadsGoTogether(t *testing.T) {
	var gets, mixed []record.Op
	for i := range 16 {
		gets = append(gets, named(record.Get, fmt.Sprint("get", i), ""))
	}
	mixed = append(append(mixed, gets...), named(record.Set, "other", "v"))
	for _, c := range []struct {
		name string
		at   int
		sick []int
		ops  []record.Op
		want [3]int // messages to the members
	}{
		{"gets", 1, nil, gets, [3]int{0, 0, 1}},
		{"gets of a node that is no member", 3, nil, gets, [3]int{1, 0, 1}},
		{"a set goes elsewhere", 1, nil, mixed, [3]int{1, 0, 0}},
		{"the set's coordinator is sick", 1, []int{0}, mixed, [3]int{0, 0, 1}},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, 4, majority)
			r.each(c.at, c.sick, func(w *wire) { w.sick.Store(true) })
			s := r.nodes[c.at].Session()
			defer s.Close()
			s.Execute(c.ops, make([]record.Result, len(c.ops)))
			var got [3]int
			for i := range got {
				if i != c.at {
					got[i] = r.nodes[c.at].wires[i].count(message.ReadMany)
				}
			}
			if got != c.want {
				t.Errorf("%s: %v messages, want %v", c.name, got, c.want)
			}
		})
	}
}

// Values stay as they are until the next Execute, and are let go of by an empty one.
func TestExecuteNothingReleases(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		big := bytes.Repeat([]byte("v"), 2*keepBuffer)
		r.do(0, op(record.Set, string(big)))
		s := r.nodes[1].Session()
		ops := []record.Op{get(), named(record.Set, "other", "x"), {Kind: record.GetAndTouch, Key: key}}
		res := make([]record.Result, len(ops))
		s.Execute(ops, res)
		if !bytes.Equal(res[0].Value, big) || !bytes.Equal(res[2].Value, big) || len(s.reads) != 1 || len(s.muts) != 2 {
			t.Fatalf("%d and %d bytes; %d reads, %d mutations", len(res[0].Value), len(res[2].Value), len(s.reads), len(s.muts))
		}
		read := s.reads[0]
		s.Execute(nil, nil)
		for _, sl := range s.slots[:cap(s.slots)] {
			if sl.read != nil || sl.mut != nil {
				t.Error("an operation is kept alive")
			}
		}
		if len(s.reads) != 0 || len(s.muts) != 0 || s.slow != nil || cap(read.value) > keepBuffer {
			t.Errorf("%d reads, %d mutations, %d slow values; the pool keeps %d bytes", len(s.reads), len(s.muts), len(s.slow), cap(read.value))
		}
		call := r.nodes[1].call()
		call.Room = make([]byte, 2*keepBuffer)
		if r.nodes[1].recycle(call); call.Room != nil {
			t.Errorf("the pool keeps %d bytes of a call", cap(call.Room))
		}
	})
}

// Mutations go to the favoured replica; one that refuses is passed over, for the next in line.
func TestForwardRefused(t *testing.T) {
	for _, status := range []message.Status{message.Unreachable, message.Busy, message.NotVoting, message.NotReplica, message.WrongEpoch, message.Invalid, message.ClockReject} {
		for at := range 4 {
			bubble(t, func(t *testing.T) {
				r := newRig(t, 4, majority)
				w := r.nodes[at].wires[0]
				w.answer(status, message.Mutate)
				r.want(status.String(), r.do(at, set("v")), record.Stored, "")
				want := map[int][4]int{0: {}, 1: {1, 0, 0, 0}, 2: {1, 1, 0, 0}, 3: {1, 1, 0, 0}}[at]
				for k, w := range r.nodes[at].wires {
					if n := w.count(message.Mutate); n != want[k] {
						t.Errorf("%v at node %d: %d forwards to node %d, want %d", status, at, n, k, want[k])
					}
				}
			})
		}
	}
}

func TestForwardRefusedByAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 4, majority)
		r.each(3, []int{0, 1, 2}, func(w *wire) { w.answer(message.Unreachable) })
		begun := time.Now()
		r.want("set", r.do(3, set("v")), record.Unavailable, "")
		if took := time.Since(begun); took != 0 {
			t.Errorf("took %v", took)
		}
		r.each(3, []int{0, 1, 2}, func(w *wire) { w.heal(); w.sick.Store(true) })
		r.want("health is a hint only", r.do(3, set("v")), record.Stored, "")
	})
}

// No answer from the coordinator: it may have done it, so nobody else is asked.
func TestForwardTimedOutIsUnknown(t *testing.T) {
	for _, status := range []message.Status{message.TimedOut, message.Nack, message.Corrupt, keep, mute} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, 4, majority)
			r.nodes[3].wires[0].answer(status, message.Mutate)
			r.want(status.String(), r.do(3, set("v")), record.Unknown, "")
			if n := r.heard(3, message.Mutate); n != 1 {
				t.Errorf("%v: sent %d times", status, n)
			}
		})
	}
}

// A reply of OK without an outcome comes from a fault, and is no refusal.
func TestForwardAnsweredWithoutAnOutcome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 4, majority)
		r.nodes[3].wires[0].answer(message.OK, message.Mutate)
		r.want("set", r.do(3, set("v")), record.Unknown, "")
		if n := r.heard(3, message.Mutate); n != 1 {
			t.Errorf("sent %d times", n)
		}
	})
}

// A sick node is not asked first.
func TestForwardPrefersTheHealthy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 4, majority)
		r.nodes[3].wires[0].sick.Store(true)
		r.want("set", r.do(3, set("v")), record.Stored, "")
		if r.nodes[3].wires[0].count(message.Mutate) != 0 || r.nodes[3].wires[1].count(message.Mutate) != 1 {
			t.Error("the sick node was asked")
		}
	})
}

func TestForwarded(t *testing.T) {
	send := func(nd *node, change func(*message.Request)) message.Reply {
		r := &replies{done: make(chan message.Reply, 1)}
		o := set("v")
		p, _ := nd.group(hashOf(key))
		q := message.Request{Kind: message.Mutate, Partition: p, Epoch: 1, Key: key, Hash: hashOf(key), Op: o, Timeout: time.Hour}
		change(&q)
		nd.Forwarded(&message.Call{Request: q, Completion: r})
		return <-r.done
	}
	bubble(t, func(t *testing.T) {
		r := newRig(t, 4, majority)
		for _, c := range []struct {
			name   string
			at     int
			change func(*message.Request)
			want   message.Status
		}{
			{"as it should be", 0, func(*message.Request) {}, message.OK},
			{"no replica", 3, func(*message.Request) {}, message.NotReplica},
			{"wrong partition", 0, func(q *message.Request) { q.Partition++ }, message.Invalid},
			{"unknown operation", 0, func(q *message.Request) { q.Op.Kind = 99 }, message.Invalid},
		} {
			if got := send(r.nodes[c.at], c.change); got.Status != c.want || (got.Status == message.OK) != (got.Result.Status == record.Stored) {
				t.Errorf("%s: %v, result %d, want %v", c.name, got.Status, got.Result.Status, c.want)
			}
		}
		r.nodes[0].wires[0].sick.Store(true)
		if got := send(r.nodes[0], func(*message.Request) {}); got.Status != message.NotVoting {
			t.Errorf("without a vote: %v", got.Status)
		}
		r.nodes[0].wires[0].sick.Store(false)
		// However long the sender would wait, an operation ends within this node's own timeout.
		r.each(0, []int{1, 2}, func(w *wire) { w.answer(keep) })
		begun := time.Now()
		if got := send(r.nodes[0], func(*message.Request) {}); got.Result.Status != record.Unknown || time.Since(begun) > 2*timeout {
			t.Errorf("result %d after %v", got.Result.Status, time.Since(begun))
		}
	})
}

type replies struct{ done chan message.Reply }

func (r *replies) Done(c *message.Call) { r.done <- c.Reply }
