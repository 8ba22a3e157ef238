package quorum

import (
	"encoding/binary"
	"testing"
	"time"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// kept is the one flight of a class at node i.
func (r *rig) kept(i int, c flight.Class) *flight.Flight {
	r.t.Helper()
	all := r.nodes[i].opts.Flights.Recent(c, 99)
	if len(all) != 1 {
		r.t.Fatalf("node %s has %d flights %v", r.nodes[i].id, len(all), c.Names())
	}
	return all[0]
}

func step(f *flight.Flight, id string, kind message.Kind) (found flight.Step) {
	for _, s := range f.Steps {
		if string(s.Node) == id && s.Kind == kind {
			return s
		}
	}
	return found
}

// A get whose replica hangs is kept, and says which; quick ones are not kept.
func TestFlightOfASlowGet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 4, majority)
		r.do(0, set("v"))
		r.do(3, get())
		w := r.nodes[3].wires[1]
		w.answer(keep)
		other := r.nodes[3].wires[2]
		other.answer(keep)
		go func() { time.Sleep(timeout / 10); other.release() }()
		r.want("get", r.do(3, get()), record.Found, "v")
		f := r.kept(3, flight.Slow)
		if f.Op != record.Get || f.Status != record.Found || f.Took < timeout/20 || f.Class != flight.Slow || f.Forwarded {
			t.Errorf("%+v", f)
		}
		hung, quick, late := step(f, "b", message.Read), step(f, "a", message.Read), step(f, "c", message.Read)
		if len(f.Steps) != 3 || hung.At != 0 || hung.Sent != 0 && hung.Sent < minHedge || quick.At != 0 && quick.Status != message.OK || late.Status != message.OK || late.At < timeout/10 || late.At > f.Took {
			t.Errorf("hung %+v, quick %+v, late %+v", hung, quick, late)
		}
		w.release()
	})
}

func TestFlightOfAFailedGet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.do(0, set("v"))
		r.nodes[0].wires[1].answer(message.NotVoting)
		r.nodes[0].wires[2].answer(message.Unreachable)
		r.want("get", r.do(0, get()), record.Unavailable, "")
		f := r.kept(0, flight.Failed)
		for _, s := range f.Steps {
			if s.At == 0 {
				t.Errorf("it has answered, if in no time: %+v", s)
			}
		}
		if f.Detail == "" || step(f, "a", message.Read).Status != message.OK || step(f, "b", message.Read).Status != message.NotVoting || step(f, "c", message.Read).Status != message.Unreachable {
			t.Errorf("%+v", f)
		}
	})
}

// A get that found replicas to differ tells their ballots, and how they were made alike.
func TestFlightOfADivergedGet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.do(0, set("old"))
		r.minority("new")
		r.nodes[1].wires[2].answer(message.Unreachable)
		r.want("get", r.do(1, get()), record.Found, "new")
		f := r.kept(1, flight.Diverged)
		newer, older, written := step(f, "a", message.Read), step(f, "b", message.Read), step(f, "b", message.Accept)
		if !older.Ballot.Less(newer.Ballot) || written.Status != message.OK || written.At == 0 || written.At > max(f.Took, 1) {
			t.Errorf("%+v", f)
		}
	})
}

// A mutation that another node runs has one trace on both: the one tells whom it asked, the other what the replicas said.
func TestFlightOfAForwardedSet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 4, majority)
		r.do(0, set("v"))
		for _, slow := range r.nodes[0].wires[1:3] {
			slow.answer(keep, message.Accept, message.Prepare)
			go func() { time.Sleep(timeout / 10); slow.heal(); slow.release() }()
		}
		r.want("set", r.do(3, set("w")), record.Stored, "")
		asked, ran := r.kept(3, flight.Slow), r.kept(0, flight.Slow)
		if asked.Trace() != ran.Trace() || !ran.Forwarded || asked.Forwarded || asked.Op != record.Set || ran.Op != record.Set || asked.Key == 0 {
			t.Errorf("asked %+v, ran %+v", asked, ran)
		}
		to := step(asked, "a", message.Mutate)
		if len(asked.Steps) != 1 || to.Status != message.OK || to.At < timeout/10 {
			t.Errorf("%+v", asked.Steps)
		}
		own, slow := step(ran, "a", message.Accept), step(ran, "b", message.Accept)
		if own.Status != message.OK || slow.At < timeout/10 && step(ran, "c", message.Accept).At < timeout/10 || own.At > slow.At && slow.At > 0 {
			t.Errorf("%+v", ran.Steps)
		}
	})
}

// Nothing kept costs no allocation: a set with flights has no more than one without.
// A forwarded set whose round was answered, and which was given up later, has taken until then.
func TestFlightOfAForwardedSetThatFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 4, majority)
		r.nodes[0].wires[1].setHook(func(c *message.Call) message.Status {
			r.nodes[0].stamps.fail.Store(c.Kind == message.Prepare)
			return deliver
		})
		r.want("set", r.do(3, set("w")), record.Unavailable, "")
		if f := r.kept(0, flight.Failed); !f.Forwarded || f.Took < timeout/2 || f.Class&flight.Slow == 0 || len(f.Steps) == 0 {
			t.Errorf("it took %v, %v, %d steps", f.Took, f.Class.Names(), len(f.Steps))
		}
	})
}

func TestFlightsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random")
	}
	measure := func(at int, flights bool) float64 {
		r := steady(t)
		for _, nd := range r.nodes {
			if !flights {
				nd.opts.Flights = nil
			}
		}
		s := r.nodes[at].Session()
		ops, res := []record.Op{set("v"), get()}, make([]record.Result, 2)
		return testing.AllocsPerRun(500, func() { s.Execute(ops, res) })
	}
	for at := range 2 { // at the coordinator that runs it, and at one that has it run
		if with, without := measure(at, true), measure(at, false); with > without {
			t.Errorf("node %d: %v allocations with flights, %v without", at, with, without)
		}
	}
}

// What a sampled request asks of other nodes tells them of its trace, and by which span: the steps of its flight have those. Others tell nothing.
func TestSampledRequestsTell(t *testing.T) {
	told := func(w *wire) (of map[uint64]message.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		of = map[uint64]message.Request{}
		for _, q := range w.log {
			if c := flight.Context(q.Trace); c.Sampled() {
				of[binary.LittleEndian.Uint64(q.Trace[16:])] = q
			}
		}
		w.log = nil
		return of
	}
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.do(0, set("v")) // and get are below the ratio, which is 0
		r.do(0, get())
		for _, w := range r.nodes[0].wires[1:] {
			if n := len(told(w)); n > 0 {
				t.Fatalf("%d messages of requests that are not sampled have a trace", n)
			}
		}
		r = newRig(t, 3, majority)
		r.nodes[0].opts.Flights = flight.New(flight.Options{Slow: timeout, Ratio: 1, Rate: 9})
		check := func(what string, do func(), kinds ...message.Kind) {
			t.Helper()
			do()
			time.Sleep(timeout / 2)
			f := r.nodes[0].opts.Flights.Recent(flight.Sampled, 1)[0]
			heard := map[message.Kind]int{}
			for i, w := range r.nodes[0].wires {
				for span, q := range told(w) {
					c := flight.Context(q.Trace)
					found := false
					for _, st := range f.Steps {
						found = found || st.Span == span && st.Node == ids[i]
					}
					if !found || c.Trace() != f.Trace() {
						t.Errorf("%s: %s has the span %x of %s; the flight %s has %+v", what, q.Kind, span, c.Trace(), f.Trace(), f.Steps)
					}
					heard[q.Kind]++
				}
			}
			for _, k := range kinds {
				if heard[k] == 0 {
					t.Errorf("%s: no %s tells of it; %v do", what, k, heard)
				}
			}
		}
		check("a set in two round trips", func() { r.do(0, set("v")) }, message.Prepare, message.Accept)
		check("a set in one", func() { r.do(0, set("w")) }, message.Accept)
		check("a get", func() { r.do(0, get()) }, message.ReadMany)
		r.nodes[0].wires[1].answer(message.Busy, message.ReadMany)
		r.nodes[0].wires[2].answer(message.Busy, message.ReadMany)
		check("a get that asks twice", func() { r.do(0, get()) }, message.Read)
		r.nodes[0].wires[1].heal()
		r.nodes[0].wires[2].heal()
		r.minority("new")
		r.nodes[0].wires[2].answer(message.Unreachable)
		check("a get that writes back", func() { r.do(0, get()) }, message.Accept)
	})
}

// A write that a member is known to have missed is kept for that, and its hint names it.
func TestFlightOfAHintedSet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		var by []flight.Context
		r.nodes[0].opts.Hinter = hinter(func(c flight.Context) { by = append(by, c) })
		r.do(0, set("v"))
		if len(r.nodes[0].opts.Flights.Recent(flight.Hinted, 9)) != 0 {
			t.Fatal("a set that all members took is kept")
		}
		r.nodes[0].wires[2].answer(message.Unreachable)
		r.want("set", r.do(0, set("w")), record.Stored, "")
		time.Sleep(timeout)
		f := r.kept(0, flight.Hinted)
		if f.Class != flight.Hinted || step(f, "c", message.Accept).Status != message.Unreachable {
			t.Errorf("%+v", f)
		}
		if len(by) != 1 || by[0] != f.Context {
			t.Errorf("the hint is by %v, the write was %v", by, f.Context)
		}
	})
}

type hinter func(flight.Context)

func (h hinter) Missed(_ ring.Partition, _ ring.NodeID, _ []byte, by flight.Context) { h(by) }
