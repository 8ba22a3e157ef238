package quorum

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

var majority = ring.Quorum{N: 3, R: 2, W: 2}

// asked lists what node i's wires heard since the last heal: "value" and "digest" reads by node.
func (r *rig) asked(i int) (reads []string) {
	for k, w := range r.nodes[i].wires {
		w.mu.Lock()
		for _, q := range w.log {
			switch {
			case q.Kind == message.ReadMany:
				for rest := q.Items; len(rest) > 0; {
					var it message.Item
					it, rest, _ = message.NextItem(rest)
					what := "value of "
					if it.Digest {
						what = "digest of "
					}
					reads = append(reads, what+string(ids[k]))
				}
			case q.Kind == message.Read && q.Digest:
				reads = append(reads, "digest of "+string(ids[k]))
			case q.Kind == message.Read:
				reads = append(reads, "value of "+string(ids[k]))
			default:
				reads = append(reads, "more")
			}
		}
		w.mu.Unlock()
	}
	return reads
}

func (r *rig) heal(i int) {
	for _, w := range r.nodes[i].wires {
		w.heal()
	}
}

// One round trip: the value from one replica, oneself if one is, and ballots from the others.
func TestFastGet(t *testing.T) {
	for _, c := range []struct {
		name   string
		nodes  int
		q      ring.Quorum
		at     int
		values int
		reads  int
		own    bool
	}{
		{"3:2:2 at a replica", 3, majority, 1, 1, 2, true},
		{"3:2:2 elsewhere", 4, majority, 3, 1, 2, false},
		{"5:3:3", 5, ring.Quorum{N: 5, R: 3, W: 3}, 4, 1, 3, true},
		{"3:1:3", 3, ring.Quorum{N: 3, R: 1, W: 3}, 0, 1, 3, true},
		{"one of 3:2:2", 1, majority, 0, 1, 1, true},
		{"two of 3:2:2", 2, majority, 0, 1, 2, true},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, c.nodes, c.q)
			r.want(c.name, r.do(0, set("v")), record.Stored, "")
			r.heal(c.at)
			begun := time.Now()
			r.want(c.name, r.do(c.at, get()), record.Found, "v")
			reads := r.asked(c.at)
			values := slices.DeleteFunc(slices.Clone(reads), func(s string) bool { return !strings.HasPrefix(s, "value") })
			if len(reads) != c.reads || len(values) != c.values || c.own && values[0] != "value of "+string(ids[c.at]) {
				t.Errorf("%s: asked %q", c.name, reads)
			}
			r.heal(c.at)
			absent := get()
			absent.Key = []byte("absent")
			r.want(c.name+", absent", r.do(c.at, absent), record.NotFound, "")
			if n := len(r.asked(c.at)); n != c.reads || time.Since(begun) != 0 {
				t.Errorf("%s: absent: %d reads, %v", c.name, n, time.Since(begun))
			}
		})
	}
}

// A replica that cannot answer is replaced by another one at once, for the value if that is missing.
func TestGetAsksAnother(t *testing.T) {
	for _, status := range []message.Status{message.Busy, message.NotVoting, message.NotReplica, message.Corrupt, message.Unreachable, message.TimedOut, message.Invalid, message.Nack} {
		for bad := range 3 {
			bubble(t, func(t *testing.T) {
				r := newRig(t, 3, majority)
				r.do(0, set("v"))
				r.heal(0)
				r.nodes[0].wires[bad].answer(status)
				begun := time.Now()
				r.want(status.String(), r.do(0, get()), record.Found, "v")
				if time.Since(begun) != 0 || len(r.asked(0)) > 3 {
					t.Errorf("%v of %s: took %v, asked %q", status, ids[bad], time.Since(begun), r.asked(0))
				}
			})
		}
	}
}

// Nodes of an older build are asked key by key, and everything works through them.
func TestGetsFromOlderBuilds(t *testing.T) {
	for _, at := range []int{0, 3} { // a replica itself, and a node that is none
		bubble(t, func(t *testing.T) {
			r := newRig(t, 4, majority)
			for i := range 3 {
				r.nodes[at].wires[i].setHook(func(c *message.Call) message.Status {
					if c.Since() > message.Oldest {
						return message.Unsupported
					}
					return deliver
				})
			}
			ops := make([]record.Op, 20)
			for i := range ops {
				ops[i] = set(fmt.Sprint("v", i))
				ops[i].Key = fmt.Appendf(nil, "key-%d", i)
			}
			res := make([]record.Result, len(ops))
			s := r.nodes[at].Session()
			defer s.Close()
			begun := time.Now()
			s.Execute(ops, res)
			for i := range ops {
				ops[i] = record.Op{Kind: record.Get, Key: ops[i].Key}
			}
			s.Execute(ops, res)
			for i := range ops {
				r.want(string(ops[i].Key), res[i], record.Found, fmt.Sprint("v", i))
			}
			if time.Since(begun) != 0 || r.nodes[at].Counters().Hedges.Load() != 0 {
				t.Errorf("it took %v, %d hedges", time.Since(begun), r.nodes[at].Counters().Hedges.Load())
			}
		})
	}
}

// A slow replica is hedged, whether it has the value or a digest; its late answer changes nothing.
func TestHedge(t *testing.T) {
	for _, at := range []int{0, 3} { // a replica itself, and a node that is none
		for slow := range 3 {
			bubble(t, func(t *testing.T) {
				r := newRig(t, 4, majority)
				r.do(0, set("v"))
				w := r.nodes[at].wires[slow]
				w.answer(keep)
				begun := time.Now()
				s := r.nodes[at].Session()
				res := make([]record.Result, 1)
				s.Execute([]record.Op{get()}, res)
				r.want("get", res[0], record.Found, "v")
				if asked := len(w.held) > 0; asked != (r.nodes[at].Counters().Hedges.Load() == 1) || time.Since(begun) > timeout/4 {
					t.Errorf("slow %s: asked %v, %d hedges, %v", ids[slow], asked, r.nodes[at].Counters().Hedges.Load(), time.Since(begun))
				}
				for i, w := range r.nodes[at].wires {
					if said := w.slow.Load(); (said == 1) != (i == slow && r.nodes[at].Counters().Hedges.Load() == 1) {
						t.Errorf("slow %s: %s was said to be %d times", ids[slow], ids[i], said)
					}
				}
				w.release()
				r.want("after the late answer", res[0], record.Found, "v")
				s.Close()
			})
		}
	}
}

// Nobody answers: the read ends at its deadline. Nobody can be reached: at once.
func TestGetWithoutAQuorum(t *testing.T) {
	for _, c := range []struct {
		status message.Status
		down   []int
		took   time.Duration
		want   record.Status
	}{
		{keep, []int{0, 1, 2}, timeout, record.Unavailable},
		{keep, []int{1, 2}, timeout, record.Unavailable},
		{message.Unreachable, []int{1, 2}, 0, record.Unavailable},
		{message.Corrupt, []int{0, 1, 2}, 0, record.Corrupt},
		{message.Corrupt, []int{1, 2}, 0, record.Corrupt},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, 3, majority)
			r.do(0, set("v"))
			r.each(0, c.down, func(w *wire) { w.answer(c.status) })
			begun := time.Now()
			r.want(c.status.String(), r.do(0, get()), c.want, "")
			if took := time.Since(begun); took != c.took {
				t.Errorf("%v of %v: took %v, want %v", c.status, c.down, took, c.took)
			}
		})
	}
}

// minority leaves a state on node 0's replica only.
func (r *rig) minority(value string) {
	r.each(0, []int{1, 2}, func(w *wire) { w.answer(message.Busy, message.Accept) })
	r.want("on a minority", r.do(0, set(value)), record.Unknown, "")
	r.heal(0)
	if string(r.state(0).Value) != value || string(r.state(1).Value) == value {
		r.t.Fatalf("states %+v %+v", r.state(0), r.state(1))
	}
}

// Replicas that differ: the newest state goes to a write quorum before anybody hears of it.
func TestDivergedIsWrittenBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.do(0, set("old"))
		r.minority("new")
		r.nodes[1].wires[2].answer(message.Unreachable)
		version := r.state(0).Version
		r.want("get", r.do(1, get()), record.Found, "new")
		if got := r.state(1); string(got.Value) != "new" || got.Version != version {
			t.Errorf("written back: %+v, want version %d", got, version)
		}
		c := r.nodes[1].Counters()
		if c.UnreconciledGets.Load() != 1 || c.WriteBacks.Load() != 1 {
			t.Errorf("%d unreconciled, %d write-backs", c.UnreconciledGets.Load(), c.WriteBacks.Load())
		}
		r.heal(1)
		r.nodes[1].wires[0].answer(message.Unreachable) // who had it first is gone
		r.want("get again", r.do(1, get()), record.Found, "new")
	})
}

// promise has node i's replica promise b, for a round that never goes on.
func (r *rig) promise(i int, b record.Ballot) {
	h := ring.Hash(key)
	call := &message.Call{Completion: ignore{}, Request: message.Request{Kind: message.Prepare, Epoch: b.Epoch,
		Partition: ring.PartitionOf(h, partitions), Key: key, Hash: h, Ballot: b}}
	if r.nodes[i].replica.Send(call); call.Reply.Status != message.OK {
		r.t.Fatalf("no promise: %v", call.Reply.Status)
	}
}

// Somebody promised a higher ballot meanwhile: the write-back is refused, and a round decides.
func TestRefusedWriteBackBecomesARound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.do(0, set("old"))
		r.minority("new")
		version := r.state(0).Version
		r.nodes[1].wires[2].answer(message.Unreachable)
		time.Sleep(time.Millisecond) // the stamp is above the minority's
		s, _ := r.nodes[2].stamps.Next(0, 2)
		r.promise(1, record.Ballot{Epoch: 1, Stamp: s})
		r.want("get", r.do(1, get()), record.Found, "new")
		if a, c := r.state(0), r.state(2); a.Version != version || c.Version != version || a.Ballot != c.Ballot {
			t.Errorf("states %+v and %+v, want version %d on both", a, c, version)
		}
		if n := r.nodes[1].Counters().Mutations.Load(); n != 1 {
			t.Errorf("%d rounds", n)
		}
	})
}

// With R=1, one absent answer is not a write quorum's: the key is sealed before absence is told.
func TestReadOneWriteAll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, ring.Quorum{N: 3, R: 1, W: 3})
		r.want("set", r.do(0, set("v")), record.Stored, "")
		for i := range 3 {
			r.want("get", r.do(i, get()), record.Found, "v")
			if r.state(i).Version != r.state(0).Version {
				t.Errorf("node %d holds %+v", i, r.state(i))
			}
		}
		// Without one node nothing can be written, and nothing be known as chosen.
		r.nodes[0].wires[2].answer(message.Unreachable)
		r.want("set without one", r.do(0, set("w")), record.Unknown, "")
		r.want("get without one", r.do(0, get()), record.Unavailable, "")
		r.heal(0)
		r.want("get", r.do(0, get()), record.Found, "w")
	})
}

// A coordinator behind by an epoch learns it from the replicas, and reads on.
func TestReadLearnsTheEpoch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 4, majority)
		r.do(0, set("v"))
		two := ring.Configuration{Epoch: 2, Members: r.conf.Members}
		for i := range 3 {
			r.adopt(i, two)
			r.route(i, two)
		}
		outside := r.nodes[3]
		outside.opts.Adopt = func(p ring.Partition, c ring.Configuration) { r.route(3, c) }
		r.want("get", r.do(3, get()), record.Found, "v")
		if e := outside.routes.Load().group(0).conf.Epoch; e != 2 {
			t.Errorf("goes by epoch %d", e)
		}
	})
}

// Replicas behind by an epoch are told it, by a read too.
func TestReadTellsTheEpoch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, 3, majority)
		r.do(0, set("v"))
		two := ring.Configuration{Epoch: 2, Members: r.conf.Members}
		r.adopt(0, two)
		r.route(0, two)
		r.want("get", r.do(0, get()), record.Found, "v")
		p := ring.PartitionOf(ring.Hash(key), partitions)
		if a, b := r.nodes[1].table.Configuration(p), r.nodes[2].table.Configuration(p); a.Epoch != 2 && b.Epoch != 2 {
			t.Errorf("nobody was told: %+v %+v", a, b)
		}
	})
}

// What a batch wants of one node goes in one message, up to a limit; a node that fails is replaced, key
// by key.
func TestManyGets(t *testing.T) {
	const n = message.MaxItems + 10
	for _, at := range []int{0, 3} {
		for _, status := range []message.Status{deliver, message.Busy, message.Unreachable, message.TimedOut, keep} {
			bubble(t, func(t *testing.T) {
				r := newRig(t, 4, majority)
				ops, res := make([]record.Op, n), make([]record.Result, n)
				for i := range ops {
					k := fmt.Appendf(nil, "key%d", i)
					if i%2 == 0 {
						r.do(i%3, record.Op{Kind: record.Set, Key: k, Value: k})
					}
					ops[i] = record.Op{Kind: record.Get, Key: k}
				}
				r.heal(at)
				r.nodes[at].wires[2].answer(status)
				s := r.nodes[at].Session()
				s.Execute(ops, res)
				for i, got := range res {
					if i%2 == 0 {
						r.want(string(ops[i].Key), got, record.Found, string(ops[i].Key))
					} else {
						r.want(string(ops[i].Key), got, record.NotFound, "")
					}
				}
				if reads := len(r.asked(at)); status == deliver && reads != 2*n {
					t.Errorf("%d reads of %d keys", reads, n)
				}
				for k, w := range r.nodes[at].wires {
					if many := w.count(message.ReadMany); status == deliver && many > 2 {
						t.Errorf("%d messages to %s", many, ids[k])
					}
				}
				r.nodes[at].wires[2].release()
				s.Close()
			})
		}
	}
}
