package placement

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// source is a peer with one record, that says other things first.
type source struct {
	first []message.Status
	asked atomic.Int32 // for pages and sums
	told  atomic.Int32
	sick  bool
}

func (s *source) Flush()        {}
func (s *source) Healthy() bool { return !s.sick }

// Send implements Replica.
func (s *source) Send(call *message.Call) {
	call.Reply = message.Reply{Status: message.OK}
	switch call.Kind {
	case message.Configure:
		s.told.Add(1)
	case message.Transfer, message.Sums:
		if n := int(s.asked.Add(1)); n <= len(s.first) {
			call.Reply = message.Reply{Status: s.first[n-1], Configuration: ring.Configuration{Epoch: 1}}
		} else if call.Kind == message.Sums {
			call.Reply.Items = make([]byte, 8*message.Leaves)
		} else {
			call.Reply.Items = message.BeginPage(nil)
		}
	}
	call.Completion.Done(call)
}

// taker is this node's replica.
type taker struct {
	source
	pulled atomic.Int32
}

func (*taker) Learn(call *message.Call)           { call.Completion.Done(call) }
func (*taker) Pulled(ring.Partition, uint32) bool { return false }
func (t *taker) MarkPulled(_ ring.Partition, _ uint32, _ record.Ballot, done func(error)) {
	t.pulled.Add(1)
	done(nil)
}

// A source that has not heard of the move, or lost a page, is asked again, and nobody else is asked in its
// place; one that is gone is not.
func TestPullAsksAgain(t *testing.T) {
	joint := ring.Configuration{Epoch: 2, Members: []ring.NodeID{"b", "c", "d"}, Next: []ring.NodeID{"a", "c", "d"}}
	for _, c := range []struct {
		name           string
		first          []message.Status
		sick           bool
		b, c, d, tells int32
	}{
		{"ready", nil, false, 1, 1, 0, 0},
		{"behind", []message.Status{message.WrongEpoch, message.WrongEpoch}, false, 3, 1, 0, 2},
		{"loses a page", []message.Status{message.TimedOut, message.Busy}, false, 3, 1, 0, 0},
		{"refuses", []message.Status{message.NotVoting}, false, 1, 1, 1, 0},
		{"gone", []message.Status{message.TimedOut}, true, 0, 1, 1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, others := &source{first: c.first, sick: c.sick}, []*source{{}, {}}
			self := &taker{}
			peers := map[ring.NodeID]Replica{"a": self, "b": b, "c": others[0], "d": others[1]}
			m := NewMover(Options{
				Self: "a", Partitions: 1, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Local: self,
				Configuration: func(ring.Partition) ring.Configuration { return joint },
				Peer:          func(id ring.NodeID) Replica { return peers[id] },
				Timeout:       time.Second, Logger: slog.New(slog.DiscardHandler),
			})
			if err := m.pull(t.Context(), 0, joint); err != nil || self.pulled.Load() != 1 {
				t.Fatalf("%s: %v, pulled %d times", c.name, err, self.pulled.Load())
			}
			asked := [4]int32{b.asked.Load(), others[0].asked.Load(), others[1].asked.Load(), b.told.Load()}
			if want := [4]int32{c.b, c.c, c.d, c.tells}; asked != want {
				t.Errorf("%s: asked b, c and d, and told b: %v, not %v", c.name, asked, want)
			}
		})
	}
}
