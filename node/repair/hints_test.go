package repair

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/ring"
)

func (h *Hints) fill(peer ring.NodeID, from, n int) {
	for i := range n {
		h.Missed(ring.Partition((from+i)%3), peer, fmt.Appendf(nil, "key-%04d", from+i), flight.Context{})
	}
}

func (h *Hints) want(t *testing.T, when string, waiting, added, dropped int) {
	t.Helper()
	c := &h.counters
	if h.Waiting() != waiting || c.Added.Load() != uint64(added) || c.Dropped.Load() != uint64(dropped) {
		t.Errorf("%s: %d wait, %d added, %d dropped; want %d, %d, %d", when, h.Waiting(), c.Added.Load(), c.Dropped.Load(), waiting, added, dropped)
	}
	keys, bytes := 0, 0
	for _, m := range h.peers {
		own := room{}
		for key := range m.keys {
			own.add(key, 1)
		}
		if own != m.room || own.keys == 0 {
			t.Errorf("%s: a peer has %+v, and counts %+v", when, own, m.room)
		}
		keys, bytes = keys+own.keys, bytes+own.bytes
	}
	if h.all != (room{keys, bytes}) || keys > h.maxKeys || bytes > h.maxBytes {
		t.Errorf("%s: %d keys, %d bytes; counted are %+v", when, keys, bytes, h.all)
	}
}

func TestBounds(t *testing.T) {
	h := NewHints(100, 1<<20)
	h.fill("a", 0, 40)
	h.fill("a", 0, 40)
	h.want(t, "the same twice", 40, 40, 0)
	h.fill("a", 40, 20)
	h.want(t, "one peer has half of the room", 50, 50, 10)
	h.fill("b", 0, 30)
	h.fill("c", 0, 30)
	h.want(t, "all of it is taken", 100, 100, 20)
	h.fill("a", 0, 40)
	h.want(t, "what is known needs no room", 100, 100, 20)

	behind := map[ring.NodeID]int{}
	h.Each(func(peer ring.NodeID, keys int) { behind[peer] = keys })
	if behind["a"] != 50 || behind["b"] != 30 || behind["c"] != 20 {
		t.Errorf("%v", behind)
	}
	all := h.list("b")
	for i := 1; i < len(all); i++ {
		if a, b := all[i-1], all[i]; a.p > b.p || a.p == b.p && a.key >= b.key {
			t.Fatalf("%v before %v", a, b)
		}
	}
	for _, x := range all {
		h.take("b", x)
		h.take("b", x)
	}
	h.want(t, "taken", 70, 100, 20)
	for _, x := range all[:10] {
		h.putBack("b", x)
		h.putBack("b", x)
	}
	h.want(t, "put back", 80, 100, 20)
	h.forget("a")
	h.forget("nobody")
	h.want(t, "forgotten", 30, 100, 20)
	if n := h.counters.Forgotten.Load(); n != 50 {
		t.Errorf("%d forgotten", n)
	}

	h = NewHints(1000, 10*(hintBytes+100))
	long := strings.Repeat("k", 98)
	for i := range 10 {
		h.Missed(0, "a", fmt.Appendf(nil, "%s%02d", long, i), flight.Context{})
	}
	h.want(t, "half of the bytes", 5, 5, 5)
	h.fill("b", 0, 100)
	if h.all.bytes > h.maxBytes || h.counters.Dropped.Load() < 90 {
		t.Errorf("%d bytes of %d, %d dropped", h.all.bytes, h.maxBytes, h.counters.Dropped.Load())
	}
}

// A hint that is there already costs nothing: while a peer is away the same keys are written over and over.
func TestKnownHintsAllocateNothing(t *testing.T) {
	h, key := NewHints(100, 1<<20), []byte("a key of some thirty-two bytes..")
	h.Missed(0, "a", key, flight.Context{})
	if n := testing.AllocsPerRun(100, func() { h.Missed(0, "a", key, flight.Context{}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// dead is a peer that is not there.
type dead struct{}

func (dead) Send(call *message.Call) {
	call.Reply = message.Reply{Status: message.Unreachable}
	call.Completion.Done(call)
}
func (dead) Flush()        {}
func (dead) Healthy() bool { return false }

// A Wake begins a pass soon, but however many come, passes are some time apart.
func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moves := ring.Configuration{Epoch: 2, Members: []ring.NodeID{"a"}, Next: []ring.NodeID{"b"}} // so that a pass has nothing to do
		r := New(Options{Self: "a", Partitions: 1, Configuration: func(ring.Partition) ring.Configuration { return moves },
			Peer: func(ring.NodeID) Replica { return dead{} }, Pause: 30 * time.Second, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		passes := func(when string, want uint64) {
			t.Helper()
			synctest.Wait()
			if n := r.Counters().Passes.Load(); n != want {
				t.Errorf("%s: %d passes, want %d", when, n, want)
			}
		}
		passes("at the start", 1)
		time.Sleep(29 * time.Second)
		passes("before the pause is over", 1)
		time.Sleep(time.Second)
		passes("after the pause", 2)
		r.Wake()
		time.Sleep(settle - 1)
		passes("just woken", 2)
		time.Sleep(time.Nanosecond)
		passes("woken", 3)
		for range 1000 {
			r.Wake()
			time.Sleep(10 * time.Millisecond)
		}
		passes("woken for 10 s", 6)
		time.Sleep(settle)
		passes("the last wake counts, too", 7)
		time.Sleep(28 * time.Second)
		passes("asleep again", 7)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
