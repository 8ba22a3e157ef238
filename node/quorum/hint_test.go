package quorum

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/repair"
	"kai/node/ring"
)

// heard is a Hinter that writes down what it hears.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) Missed(p ring.Partition, peer ring.NodeID, key []byte, _ flight.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p != ring.PartitionOf(ring.Hash(key), partitions) {
		h.all = append(h.all, "another partition than the key's")
	}
	h.all = append(h.all, fmt.Sprintf("%s %s", peer, key))
}

// since returns, sorted, what was heard since it was asked last.
func (h *heard) since() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.all
	h.all = nil
	slices.Sort(all)
	return all
}

// hinted has node i tell a Hinter.
func (r *rig) hinted(i int) *heard {
	h := &heard{}
	r.nodes[i].opts.Hinter = h
	return h
}

// Whoever does not accept what a quorum accepts is told of, by the key of that write, whatever became of
// the lane and the session by the time his answer comes.
func TestMissedWrites(t *testing.T) {
	for _, tt := range []struct {
		name  string
		how   message.Status
		later time.Duration // until it is known
	}{
		{"unreachable", message.Unreachable, 0},
		{"busy", message.Busy, 0},
		{"not voting", message.NotVoting, 0},
		{"promised higher", message.Nack, 0},
		{"timed out", keep, 2 * timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, 3, majority)
				h := r.hinted(0)
				sets := func(n int) (want []string) {
					s := r.nodes[0].Session()
					defer s.Close()
					var ops []record.Op
					for i := range n {
						k := fmt.Appendf(nil, "key-%02d", i)
						ops = append(ops, record.Op{Kind: record.Set, Key: k, Value: []byte("v")})
						want = append(want, fmt.Sprintf("c %s", k))
					}
					res := make([]record.Result, n)
					s.Execute(ops, res)
					for i := range ops {
						if res[i].Status != record.Stored {
							t.Errorf("set %d: %+v", i, res[i])
						}
						for k := range ops[i].Key { // the caller's again
							ops[i].Key[k] = '!'
						}
					}
					return want
				}
				sets(20)
				synctest.Wait()
				if got := h.since(); len(got) > 0 {
					t.Fatalf("all answered: %v", got)
				}
				r.nodes[0].wires[2].answer(tt.how, message.Accept)
				before := r.nodes[0].Counters().StickyRounds.Load()
				for range 2 { // the second ones are other lanes' keys in the same memory
					want := sets(20)
					if tt.later > 0 {
						r.do(0, record.Op{Kind: record.Get, Key: []byte("other")})
					}
					time.Sleep(tt.later)
					synctest.Wait()
					if got := h.since(); !slices.Equal(got, want) {
						t.Fatalf("heard %v, want %v", got, want)
					}
				}
				if n := r.nodes[0].Counters().StickyRounds.Load() - before; n != 40 {
					t.Errorf("%d of 40 writes took one round trip", n)
				}
				// By Prepare and Accept, on a worker's goroutine.
				r.nodes[0].sticky.init(64)
				want := sets(20)
				time.Sleep(tt.later)
				synctest.Wait()
				if got := h.since(); !slices.Equal(got, want) {
					t.Fatalf("without sticky states: heard %v, want %v", got, want)
				}
			})
		})
	}
}

// What no quorum accepted is not chosen: nobody missed it. And a read's write-back tells of who missed it.
func TestMissedOnlyWhatIsChosen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		h := r.hinted(0)
		r.want("set", r.do(0, set("old")), record.Stored, "")
		r.each(0, []int{1, 2}, func(w *wire) { w.answer(message.Unreachable, message.Accept) })
		r.want("set without a quorum", r.do(0, set("new")), record.Unknown, "")
		time.Sleep(2 * timeout)
		if got := h.since(); len(got) > 0 {
			t.Fatalf("not chosen: heard %v", got)
		}
		r.nodes[0].wires[1].heal()
		r.want("get", r.do(0, get()), record.Found, "new")
		synctest.Wait()
		if got := h.since(); len(got) == 0 || got[0] != "c key" {
			t.Errorf("written back: heard %v", got)
		}
	})
}

// handoff is a rig whose nodes keep hints, and hand them off when told.
type handoff struct {
	*rig
	hints     []*repair.Hints
	repairers []*repair.Repairer
}

func newHandoff(t *testing.T, maxHints int) *handoff {
	h := &handoff{rig: newRig(t, 3, majority)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	for i, nd := range h.nodes {
		hints := repair.NewHints(maxHints, 1<<20)
		nd.opts.Hinter = hints
		nd.repairer = repair.New(repair.Options{
			Self: nd.id, Partitions: partitions, Configuration: nd.table.Configuration,
			Peer: func(id ring.NodeID) repair.Replica {
				return h.nodes[i].wires[slices.Index(ids, id)]
			},
			Chosen: nd.Chosen, Rewrite: nd.Rewrite, Local: nd.replica, Hints: hints,
			Timeout: timeout, Pause: time.Hour, Rest: 1, Logger: slog.New(slog.DiscardHandler),
		})
		h.hints, h.repairers = append(h.hints, hints), append(h.repairers, nd.repairer)
		go func() { _ = nd.repairer.HandOff(ctx) }() // nil: it ends with ctx
	}
	t.Cleanup(func() { cancel(); synctest.Wait() })
	return h
}

// lose cuts node 2 off, or brings it back.
func (h *handoff) lose(lost bool) {
	for i := range 2 {
		w := h.nodes[i].wires[2]
		w.sick.Store(lost)
		if w.heal(); lost {
			w.answer(message.Unreachable)
		}
	}
}

// sets writes n keys at node 0.
func (h *handoff) sets(n int, value string) {
	h.t.Helper()
	for i := range n {
		h.want("set", h.do(0, record.Op{Kind: record.Set, Key: fmt.Appendf(nil, "key-%03d", i), Value: []byte(value)}), record.Stored, "")
	}
}

// ballots is what a disk holds.
func (m *memory) ballots() map[string]record.Ballot {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]record.Ballot{}
	for k, enc := range m.records {
		all[k] = record.PeekBallot(enc)
	}
	return all
}

// behind counts the keys that node 2 does not hold at the ballot of node 0.
func (h *handoff) behind() (n int) {
	theirs := h.nodes[2].disk.ballots()
	for k, b := range h.nodes[0].disk.ballots() {
		if b != theirs[k] {
			n++
		}
	}
	return n
}

// A replica that could not be reached for 100 writes has them all a moment after it is back.
func TestHandoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandoff(t, 1000)
		h.lose(true)
		h.sets(100, "first")
		h.sets(100, "second")
		if n := h.hints[0].Waiting(); n != 100 || h.behind() != 100 {
			t.Fatalf("%d hints, %d keys behind, want 100 of both", n, h.behind())
		}
		time.Sleep(time.Minute)
		if n := h.hints[0].Waiting(); n != 100 {
			t.Fatalf("%d hints while the peer is away", n)
		}
		h.lose(false)
		h.hints[0].Wake()
		time.Sleep(time.Second / 2) // less than the tick
		if n := h.behind(); n != 0 {
			t.Errorf("%d keys behind", n)
		}
		c := h.hints[0].Counters()
		if h.hints[0].Waiting() != 0 || c.Added.Load() != 100 || c.HandedOff.Load() != 100 || c.Dropped.Load()+c.Forgotten.Load() != 0 {
			t.Errorf("%d wait, of %d added, %d handed off, %d dropped, %d forgotten", h.hints[0].Waiting(), c.Added.Load(), c.HandedOff.Load(), c.Dropped.Load(), c.Forgotten.Load())
		}
		// Keys that share a promise may stand in each other's way.
		if n := h.repairers[2].Counters(); n.Taken.Load()+n.Reconciled.Load() != 100 || n.Taken.Load() < 50 {
			t.Errorf("%d records taken over, %d with the quorum's help", n.Taken.Load(), n.Reconciled.Load())
		}
	})
}

// A promise that stands against the record does not keep a chosen state out for ever: the peer asks the quorum.
func TestHandoffBesideAPromise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandoff(t, 1000)
		h.lose(true)
		h.sets(10, "value")
		later, err := h.nodes[0].stamps.Next(0, 1)
		if err != nil {
			t.Fatal(err)
		}
		for k := range h.nodes[0].disk.ballots() {
			call := &message.Call{Completion: ignore{}}
			call.Request = message.Request{Kind: message.Prepare, Epoch: 1, Hash: ring.Hash([]byte(k)), Key: []byte(k),
				Partition: ring.PartitionOf(ring.Hash([]byte(k)), partitions), Ballot: record.Ballot{Epoch: 1, Stamp: later}}
			h.nodes[2].replica.Send(call)
		}
		h.lose(false)
		h.hints[0].Wake()
		time.Sleep(10 * time.Second)
		if n, helped := h.behind(), h.repairers[2].Counters().Reconciled.Load(); n != 0 || helped != 10 {
			t.Errorf("%d keys behind, %d taken over with the quorum's help", n, helped)
		}
	})
}

// A peer that cannot take hints now gets them later; a second write that it misses meanwhile is not lost.
func TestHandoffIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandoff(t, 1000)
		h.lose(true)
		h.sets(1, "first")
		h.lose(false)
		w := h.nodes[0].wires[2]
		w.answer(message.Busy, message.Hints)
		time.Sleep(5500 * time.Millisecond) // between two ticks
		if n := h.hints[0].Waiting(); n != 1 {
			t.Errorf("%d hints wait behind a busy peer", n)
		}
		// The peer has read the first state, and not stored it yet, when it misses the second one.
		store := h.nodes[2].wires[2]
		store.answer(keep, message.Accept)
		w.heal()
		h.hints[0].Wake()
		synctest.Wait()
		w.setHook(func(c *message.Call) message.Status {
			if c.Kind == message.Accept || c.Kind == message.Prepare {
				return message.Unreachable
			}
			return deliver
		})
		h.sets(1, "second")
		if n := h.behind(); n != 1 {
			t.Fatalf("%d keys behind", n)
		}
		store.release()
		synctest.Wait()
		if n := h.behind(); n != 1 || h.repairers[2].Counters().Taken.Load() != 1 {
			t.Fatalf("%d keys behind, %d taken over: this was to be the first state", n, h.repairers[2].Counters().Taken.Load())
		}
		w.heal()
		time.Sleep(5 * time.Second)
		if n := h.behind(); n != 0 || h.hints[0].Waiting() != 0 {
			t.Errorf("%d keys behind, %d hints", n, h.hints[0].Waiting())
		}
	})
}

// Hints are bounded, and those of who is no member any more are forgotten.
func TestHintsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandoff(t, 100) // half of them for one peer
		h.lose(true)
		h.sets(80, "value")
		c := h.hints[0].Counters()
		if n := h.hints[0].Waiting(); n != 50 || c.Added.Load() != 50 || c.Dropped.Load() != 30 {
			t.Errorf("%d hints of 80, %d added, %d dropped", n, c.Added.Load(), c.Dropped.Load())
		}
		joint := ring.Configuration{Epoch: 2, Members: ids[:3], Next: ids[:2]}
		h.adopt(0, joint)
		time.Sleep(5 * time.Second)
		if n := h.hints[0].Waiting(); n != 50 {
			t.Errorf("%d hints while the move goes on", n)
		}
		h.adopt(0, ring.Configuration{Epoch: 3, Members: ids[:2]})
		time.Sleep(5 * time.Second)
		if n := h.hints[0].Waiting(); n != 0 || c.Forgotten.Load() != 50 || c.HandedOff.Load() != 0 {
			t.Errorf("%d hints of a node that has left, %d forgotten, %d handed off", n, c.Forgotten.Load(), c.HandedOff.Load())
		}
	})
}
