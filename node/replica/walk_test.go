package replica

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// model is the rules of CONSISTENCY for one key, as plainly as they can be written.
type model struct{ acc, promised record.Ballot }

func (m *model) step(q *message.Request) (message.Status, record.Ballot) {
	b := q.Ballot
	if q.Kind == message.Accept {
		b = record.PeekBallot(q.Record)
	}
	switch {
	case q.Kind == message.Read:
		return message.OK, m.acc
	case q.Kind == message.Accept && b == m.acc:
		m.promised = highest(m.promised, q.Next)
		return message.OK, record.Ballot{}
	case b.Less(m.promised):
		return message.Nack, m.promised
	case q.Kind == message.Accept:
		m.acc, m.promised = b, highest(m.promised, b, q.Next)
		return message.OK, record.Ballot{}
	case !m.acc.Less(b):
		return message.Nack, m.acc
	}
	m.promised = b
	return message.OK, m.acc
}

func highest(of ...record.Ballot) (top record.Ballot) {
	for _, b := range of {
		if top.Less(b) {
			top = b
		}
	}
	return top
}

// Random requests, each judged by the model, through restarts that put the fence in place of the
// promises.
func TestRandomWalkAgainstTheModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		d := newDisk()
		r := newRig(t, d)
		var m model
		for i := range 200 {
			q := message.Request{Kind: message.Kind(1 + rnd.IntN(3)), Ballot: ballot(1 + rnd.IntN(60))}
			if q.Kind == message.Accept {
				q.Record = encoded(ballot(1+rnd.IntN(60)), "v")
				if rnd.IntN(2) == 0 {
					q.Next = ballot(1 + rnd.IntN(60))
				}
			}
			if rnd.IntN(100) == 0 {
				r = newRig(t, d)
				if boot := r.fence.Boot(); boot > 0 {
					m.promised = record.Ballot{Epoch: 1, Stamp: record.NewStamp(boot, ^uint16(0))}
				}
			}
			status, b := m.step(&q)
			a := r.ask(q)
			if a.answers != 1 || a.Reply.Status != status || a.Reply.Ballot != b {
				t.Fatalf("seed %d, step %d, %+v: %v %v, the model says %v %v", seed, i, q, a.Reply.Status, a.Reply.Ballot, status, b)
			}
		}
	}
}

// Many at once on few keys, over a store that commits in its own time: every call is answered once,
// no promise is broken, and an acknowledged write is there or a higher one is.
func TestConcurrentCalls(t *testing.T) {
	d := newDisk()
	r := newRig(t, d)
	d.hold = true
	stop := make(chan struct{})
	var committer, callers sync.WaitGroup
	committer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				d.release(nil)
			}
		}
	})
	for w := range 6 {
		callers.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 2))
			for i := range 400 {
				k := fmt.Appendf(nil, "key%d", rnd.IntN(3))
				b := ballot(1 + 10*i + w)
				call(r, message.Request{Kind: message.Read, Key: k})
				if p := call(r, message.Request{Kind: message.Prepare, Key: k, Ballot: b}); p.Status != message.OK {
					continue
				}
				rec := record.Record{Ballot: b, Kind: record.Value, Version: 1, CAS: 1, Value: []byte("v")}
				a := call(r, message.Request{Kind: message.Accept, Key: k, Record: record.Append(nil, k, &rec), Next: ballot(10*i + w + 5)})
				if a.Status == message.OK {
					if got := call(r, message.Request{Kind: message.Read, Key: k}); got.Ballot.Less(b) {
						t.Errorf("acknowledged at %v, read at %v", b, got.Ballot)
					}
				}
			}
		})
	}
	callers.Wait()
	close(stop)
	committer.Wait()
	for i := range r.stripes {
		if r.stripes[i].first.writes != 0 || len(r.stripes[i].more) != 0 {
			t.Error("a key is pending without a write")
		}
	}
}

// call sends q and waits for the answer.
func call(r *rig, q message.Request) message.Reply {
	done := make(answered, 2)
	q.Epoch, q.Hash = 1, ring.Hash(q.Key)
	c := &message.Call{Request: q, Completion: done}
	r.Send(c)
	return <-done
}

type answered chan message.Reply

func (a answered) Done(c *message.Call) { a <- c.Reply }

func benchReplica(b *testing.B) (*Replica, *Fence) {
	d := newDisk()
	fence, err := OpenFence(d, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	return New(Options{
		Self: self, Storage: d, Journal: d, Fence: fence, Configurations: &table{configuration(1, self)},
		Partitions: 4, PromiseSlots: 256, Refused: func(error) bool { return false }, Wall: time.Now,
	}), fence
}

func BenchmarkRead(b *testing.B) {
	r, _ := benchReplica(b)
	for _, digest := range []bool{false, true} {
		b.Run(fmt.Sprintf("digest=%v", digest), func(b *testing.B) {
			c := message.Call{Completion: ignored{}, Request: message.Request{Kind: message.Read, Digest: digest, Epoch: 1, Key: key, Hash: 1}}
			b.ReportAllocs()
			for b.Loop() {
				r.Send(&c)
			}
		})
	}
}

// A round as the coordinator of a sticky key sends it, over a store in memory that commits at once.
func BenchmarkAccept(b *testing.B) {
	r, fence := benchReplica(b)
	c := message.Call{Completion: ignored{}}
	enc := encoded(record.Ballot{}, string(make([]byte, 100)))
	b.ReportAllocs()
	for b.Loop() {
		s, _ := fence.Next(0, 1)
		record.Reballot(key, enc, record.Ballot{Epoch: 1, Stamp: s})
		c.Request = message.Request{Kind: message.Accept, Epoch: 1, Key: key, Hash: 1, Record: enc}
		r.Send(&c)
		if c.Reply.Status != message.OK {
			b.Fatal(c.Reply.Status)
		}
	}
}
