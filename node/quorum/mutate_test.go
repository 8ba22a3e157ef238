package quorum

import (
	"fmt"
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// heard is how many calls of that kind node i has sent since its last heal.
func (r *rig) heard(i int, kind message.Kind) (n int) {
	for _, w := range r.nodes[i].wires {
		n += w.count(kind)
	}
	return n
}

// The first write of a key is promised and accepted; who wrote it last needs no promise again.
func TestStickyPath(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		for i, want := range []struct{ prepares, accepts int }{{3, 3}, {0, 3}, {0, 3}} {
			r.heal(0)
			r.want("set", r.do(0, set(fmt.Sprint("v", i))), record.Stored, "")
			if p, a := r.heard(0, message.Prepare), r.heard(0, message.Accept); p != want.prepares || a != want.accepts {
				t.Errorf("set %d: %d prepares, %d accepts, want %+v", i, p, a, want)
			}
		}
		if n := r.nodes[0].Counters().StickyRounds.Load(); n != 2 {
			t.Errorf("%d sticky rounds", n)
		}
		r.want("get", r.do(2, get()), record.Found, "v2")
	})
}

// Another coordinator was there meanwhile: the sticky state is not what the replicas hold any more.
func TestStickyPathIsAbandoned(t *testing.T) {
	rival := func(r *rig) { // node 1 does not know of node 0's health, and coordinates by itself
		r.nodes[1].wires[0].sick.Store(true)
		r.want("rival", r.do(1, set("rival")), record.Stored, "")
	}
	promise := func(r *rig) { // on a majority, for a round that never goes on
		time.Sleep(time.Millisecond)
		s, _ := r.nodes[2].stamps.Next(0, 2)
		r.promise(1, record.Ballot{Epoch: 1, Stamp: s})
		r.promise(2, record.Ballot{Epoch: 1, Stamp: s})
	}
	epoch := func(r *rig) {
		two := ring.Configuration{Epoch: 2, Members: r.conf.Members}
		for i := range r.nodes {
			r.adopt(i, two)
			r.route(i, two)
		}
	}
	for name, meanwhile := range map[string]func(*rig){"rival": rival, "promise": promise, "epoch": epoch} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, 3, majority)
			r.want(name, r.do(0, set("one,")), record.Stored, "")
			meanwhile(r)
			r.heal(0)
			r.want(name, r.do(0, op(record.AppendTo, "two")), record.Stored, "")
			want := "one,two"
			if name == "rival" {
				want = "rivaltwo"
			}
			r.want(name, r.do(2, get()), record.Found, want)
			if n := r.heard(0, message.Prepare); n < 3 {
				t.Errorf("%s: %d prepares", name, n)
			}
		})
	}
}

// What changes nothing costs one round trip, if a write quorum agrees on the state; and the promise
// it left serves the next mutation.
func TestNegativeAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.want("replace absent", r.do(0, op(record.Replace, "x")), record.NotStored, "")
		r.want("delete absent", r.do(0, op(record.Delete, "")), record.NotFound, "")
		if n := r.heard(0, message.Accept); n != 0 {
			t.Errorf("%d accepts", n)
		}
		r.do(0, set("v"))
		for _, c := range []struct {
			op   record.Op
			want record.Status
		}{
			{op(record.Add, "x"), record.NotStored},
			{record.Op{Kind: record.CompareAndSwap, Key: key, CAS: 1}, record.Exists},
			{incr(), record.NotNumeric},
			{op(record.Touch, ""), record.Touched}, // to the expiry it has
		} {
			r.heal(0)
			r.want(c.op.Kind.String(), r.do(0, c.op), c.want, "")
			// The sticky state alone says nothing: a rival may have written meanwhile.
			if p, a := r.heard(0, message.Prepare), r.heard(0, message.Accept); p != 3 || a != 0 {
				t.Errorf("%v: %d prepares, %d accepts", c.op.Kind, p, a)
			}
		}
		r.heal(0)
		r.want("set", r.do(0, set("w")), record.Stored, "")
		if p := r.heard(0, message.Prepare); p != 0 {
			t.Errorf("%d prepares after a promise that was not used", p)
		}
	})
}

// A state that lies on a minority must be chosen before a negative answer tells of it.
func TestNegativeAnswerOfAMinorityStateIsWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.minority("v")
		r.nodes[0].wires[2].answer(message.Unreachable)
		r.want("add", r.do(0, op(record.Add, "w")), record.NotStored, "")
		if got := r.state(1); string(got.Value) != "v" {
			t.Errorf("node 1 holds %+v", got)
		}
	})
}

// The accepts went through, their answers were lost: the retry finds itself and applies nothing.
func TestDedupe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.do(0, set("5"))
		lost := false
		for _, w := range r.nodes[0].wires {
			w.setHook(func(c *message.Call) message.Status {
				if c.Kind == message.Accept && !lost {
					lost = c.Index == 0 // itself is asked last
					return mute
				}
				return deliver
			})
		}
		res := r.do(0, incr())
		if r.want("incr", res, record.Counted, ""); res.Number != 6 {
			t.Errorf("incr: %d", res.Number)
		}
		if n := r.nodes[0].Counters().Retries.Load(); n != 1 || !lost {
			t.Errorf("%d retries", n)
		}
		r.want("get", r.do(1, get()), record.Found, "6")
	})
}

// As before, but so many others wrote meanwhile that the lineage does not reach back: the outcome
// must not be guessed.
func TestLineageTooShort(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.do(0, set("5"))
		lost, others := false, false
		rival := r.nodes[1]
		rival.wires[0].sick.Store(true)
		for _, w := range r.nodes[0].wires {
			w.setHook(func(c *message.Call) message.Status {
				switch {
				case c.Kind == message.Accept && !lost:
					lost = c.Index == 0
					return mute
				case c.Kind == message.Prepare && lost && !others:
					others = true
					for range record.MaxRecent + 1 {
						r.want("rival", r.do(1, incr()), record.Counted, "")
					}
				}
				return deliver
			})
		}
		r.want("incr", r.do(0, incr()), record.Unknown, "")
		r.want("get", r.do(1, get()), record.Found, fmt.Sprint(5+1+record.MaxRecent+1))
	})
}

// A proposal of an add lies on a minority, and somebody else's value is chosen above it. The add's
// "not stored" is written at a higher ballot before it is told: else the proposal could surface.
func TestSeal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.nodes[1].wires[0].sick.Store(true)
		lost, others := false, false
		for i, w := range r.nodes[0].wires {
			w.setHook(func(c *message.Call) message.Status {
				switch {
				case c.Kind == message.Accept && i > 0 && !lost:
					lost = i == 2
					return message.TimedOut // never arrived, for all that node 0 knows
				case c.Kind == message.Prepare && lost && !others:
					others = true
					// Node 1 has the proposal's only holder out of reach.
					r.nodes[1].wires[0].answer(message.Unreachable)
					r.want("rival", r.do(1, set("rival")), record.Stored, "")
				}
				return deliver
			})
		}
		r.want("add", r.do(0, op(record.Add, "mine")), record.NotStored, "")
		if n := r.nodes[0].Counters().Seals.Load(); n != 1 {
			t.Errorf("%d seals", n)
		}
		a, b := r.state(0), r.state(1)
		if string(a.Value) != "rival" || a.Ballot != b.Ballot || a.Version != b.Version {
			t.Errorf("node 0 holds %+v, node 1 %+v", a, b)
		}
	})
}

// Only what certainly reached nobody is called "not applied".
func TestNotAppliedOrUnknown(t *testing.T) {
	for _, c := range []struct {
		name   string
		status message.Status
		kind   message.Kind
		want   record.Status
	}{
		{"accepts refused", message.Busy, message.Accept, record.Unavailable},
		{"accepts nacked", message.Nack, message.Accept, record.Unavailable},
		{"accepts not sent", message.Unreachable, message.Accept, record.Unavailable},
		{"accepts in the wrong epoch", message.WrongEpoch, message.Accept, record.Unavailable},
		{"accepts lost", message.TimedOut, message.Accept, record.Unknown},
		{"accepts never answered", keep, message.Accept, record.Unknown},
		{"state corrupt at accept", message.Corrupt, message.Accept, record.Unknown},
		{"prepares refused", message.Busy, message.Prepare, record.Unavailable},
		{"prepares lost", message.TimedOut, message.Prepare, record.Unavailable},
		{"prepares never answered", keep, message.Prepare, record.Unavailable},
		{"clock", message.ClockReject, message.Prepare, record.Unavailable},
		{"state corrupt", message.Corrupt, message.Prepare, record.Corrupt},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, 3, majority)
			r.each(0, []int{0, 1, 2}, func(w *wire) { w.answer(c.status, c.kind) })
			begun := time.Now()
			res := r.do(0, set("v"))
			r.want(c.name, res, c.want, "")
			if took := time.Since(begun); took < timeout || took > timeout+timeout/4 {
				t.Errorf("%s: took %v", c.name, took)
			}
			if res.Detail == "" {
				t.Errorf("%s: no detail", c.name)
			}
		})
	}
}

// One accept refused of three that were not answered is one too few to be harmless.
func TestMixedFailureIsUnknown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.nodes[0].wires[0].answer(message.TimedOut, message.Accept)
		r.each(0, []int{1, 2}, func(w *wire) { w.answer(message.Busy, message.Accept) })
		r.want("set", r.do(0, set("v")), record.Unknown, "")
	})
}

// A minority out of reach is not felt.
func TestMutationsWithAMinorityDown(t *testing.T) {
	for _, s := range []message.Status{keep, message.Unreachable, message.TimedOut, message.Corrupt, message.NotVoting} {
		for down := range 3 {
			bubble(t, func(t *testing.T) {
				r := newRig(t, 3, majority)
				r.nodes[0].wires[down].answer(s, message.Prepare, message.Accept)
				begun := time.Now()
				r.want("set", r.do(0, set("v")), record.Stored, "")
				r.want("append", r.do(0, op(record.AppendTo, "w")), record.Stored, "")
				if took := time.Since(begun); took != 0 {
					t.Errorf("%v of %s: took %v", s, ids[down], took)
				}
				r.want("get", r.do(0, get()), record.Found, "vw")
			})
		}
	}
}

func TestNoTimeOnDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.nodes[0].stamps.fail.Store(true)
		if res := r.do(0, set("v")); res.Status != record.Unavailable || res.Detail != whyStamp {
			t.Errorf("%+v", res)
		}
		r.nodes[0].stamps.fail.Store(false)
		r.want("set", r.do(0, set("v")), record.Stored, "")
	})
}

// reuses is who waits for a mutation, and writes to what it brought as soon as it is decided.
type reuses struct{ brought []byte }

func (r reuses) mutated(*mutation) { clear(r.brought) }

// A read that shares a round with a write before it answers with what that brought, although who brought it has it back before.
func TestSharedValueOutlivesItsOwner(t *testing.T) {
	value := []byte("value")
	write, read := &mutation{op: set("value"), done: reuses{value}}, &mutation{op: op(record.GetAndTouch, ""), done: reuses{}}
	f := fold{res: []record.Result{{Status: record.Stored}, {Status: record.Found, Value: value}}}
	f.answer([]*mutation{write, read})
	if string(read.res.Value) != "value" {
		t.Errorf("the read answers %q", read.res.Value)
	}
}
