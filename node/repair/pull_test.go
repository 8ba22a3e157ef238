package repair

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// scripted is a replica, or the way to one, that answers by a function.
type scripted struct {
	answer func(q *message.Request) message.Reply

	mu   sync.Mutex
	seen []message.Request
}

func (s *scripted) Send(call *message.Call) {
	s.mu.Lock()
	s.seen = append(s.seen, call.Request)
	s.mu.Unlock()
	call.Reply = s.answer(&call.Request)
	call.Completion.Done(call)
}
func (s *scripted) Flush()        {}
func (s *scripted) Healthy() bool { return true }

// took is the keys that the replica was asked to accept.
func (s *scripted) took() (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.seen {
		if q.Kind == message.Accept {
			keys = append(keys, string(q.Key))
		}
	}
	slices.Sort(keys)
	return keys
}

func encoded(key string) []byte {
	return record.Append(nil, []byte(key), &record.Record{Ballot: record.Ballot{Epoch: 1, Stamp: 7}, Kind: record.Value, Value: []byte("v")})
}

// hintsFor is a Hints of those keys from node "b", and when it is answered.
func hintsFor(keys ...string) (*message.Call, answer) {
	w := answer(make(chan message.Reply, 1))
	call := &message.Call{Completion: w}
	call.Request = message.Request{Kind: message.Hints, Key: []byte("b"), Timeout: time.Minute}
	for _, k := range keys {
		call.Request.Items = message.AppendItem(call.Request.Items, message.Item{Key: []byte(k)})
	}
	return call, w
}

// puller is node "a", whose peer "b" answers a ReadMany by status(key).
func puller(peer, own *scripted) *Repairer {
	return New(Options{Self: "a", Partitions: 4, Timeout: time.Second, Logger: slog.New(slog.DiscardHandler),
		Configuration: func(p ring.Partition) ring.Configuration {
			c := ring.Configuration{Epoch: 5, Members: []ring.NodeID{"a", "b", "c"}}
			if p == ring.PartitionOf(ring.Hash([]byte("moves")), 4) {
				c.Next = []ring.NodeID{"a", "b", "d"}
			}
			return c
		},
		Peer: func(id ring.NodeID) Replica {
			return map[ring.NodeID]Replica{"a": own, "b": peer}[id]
		},
		Chosen: func(key []byte) ([]byte, bool) { return encoded(string(key)), string(key) != "lost" },
	})
}

func statuses(t *testing.T, reply message.Reply) (all []message.Status) {
	t.Helper()
	for rest := reply.Items; len(rest) > 0; {
		a, next, ok := message.NextAnswer(rest)
		if !ok || len(a.Record) > 0 {
			t.Fatalf("answer %+v %v", a, ok)
		}
		all, rest = append(all, a.Status), next
	}
	return all
}

// still are keys of partitions that do not move, by what they begin with.
func still(names ...string) (keys []string) {
	moves := ring.PartitionOf(ring.Hash([]byte("moves")), 4)
	for _, name := range names {
		for i := 0; ; i++ {
			if key := fmt.Sprint(name, i); ring.PartitionOf(ring.Hash([]byte(key)), 4) != moves {
				keys = append(keys, key)
				break
			}
		}
	}
	return keys
}

// What a peer says of each hinted key decides what becomes of it.
func TestPull(t *testing.T) {
	keys := append(still("newer", "large", "absent", "gone", "damaged", "behind", "other", "refused"), "moves")
	said := map[string]message.Answer{
		keys[0]: {Status: message.OK, Record: encoded(keys[0])},
		keys[1]: {Status: message.Busy}, // too large to be one of many
		keys[2]: {Status: message.OK},
		keys[3]: {Status: message.NotReplica}, // the quorum is asked
		keys[4]: {Status: message.OK, Record: encoded("another key")},
		keys[5]: {Status: message.WrongEpoch},
		keys[6]: {Status: message.Corrupt},
		keys[7]: {Status: message.OK, Record: encoded(keys[7])},
		keys[8]: {Status: message.OK, Record: encoded(keys[8])},
	}
	peer := &scripted{answer: func(q *message.Request) message.Reply {
		if q.Kind == message.Read {
			return message.Reply{Status: message.OK, Record: encoded(string(q.Key))}
		}
		reply := message.Reply{Status: message.OK}
		for rest := q.Items; len(rest) > 0; {
			it, next, ok := message.NextItem(rest)
			if !ok || it.Epoch != 5 || it.Digest {
				t.Errorf("asked for %+v, %v", it, ok)
			}
			reply.Items, rest = message.AppendAnswer(reply.Items, said[string(it.Key)]), next
		}
		return reply
	}}
	own := &scripted{answer: func(q *message.Request) message.Reply {
		if string(q.Key) == keys[7] && q.Kind == message.Accept {
			return message.Reply{Status: message.NotVoting}
		}
		return message.Reply{Status: message.OK}
	}}
	r := puller(peer, own)
	call, done := hintsFor(keys...)
	r.Pull(call)
	reply := <-done
	want := []message.Status{message.OK, message.OK, message.OK, message.OK, message.Corrupt, message.WrongEpoch, message.Corrupt, message.Busy, message.Busy}
	if got := statuses(t, reply); reply.Status != message.OK || !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", reply.Status, got, want)
	}
	took := []string{keys[0], keys[1], keys[3], keys[7]}
	slices.Sort(took)
	if got := own.took(); !slices.Equal(got, took) {
		t.Errorf("offered %q, want %q", got, took)
	}
}

// A peer that sends more than a node works on at once hears so, and nonsense is told from hints.
func TestPullIsBounded(t *testing.T) {
	hold := make(chan struct{})
	peer := &scripted{answer: func(q *message.Request) message.Reply {
		<-hold
		return message.Reply{Status: message.Unreachable}
	}}
	r := puller(peer, &scripted{})
	var under []answer
	for range maxPulls {
		call, done := hintsFor(still("key")...)
		r.Pull(call)
		under = append(under, done)
	}
	call, done := hintsFor(still("key")...)
	r.Pull(call)
	if reply := <-done; reply.Status != message.Busy {
		t.Errorf("one too many: %s", reply.Status)
	}
	close(hold)
	for _, done := range under {
		if reply := <-done; reply.Status != message.OK || statuses(t, reply)[0] != message.Unreachable {
			t.Errorf("%s %v", reply.Status, statuses(t, reply))
		}
	}
	if n := r.pulls.Load(); n != 0 {
		t.Errorf("%d are worked on still", n)
	}
	many := make([]string, message.MaxItems+1)
	for i := range many {
		many[i] = fmt.Sprint("key", i)
	}
	for name, change := range map[string]func(*message.Call){
		"no hints":  func(c *message.Call) { c.Request.Items = nil },
		"too many":  func(c *message.Call) { other, _ := hintsFor(many...); c.Request.Items = other.Request.Items },
		"cut short": func(c *message.Call) { c.Request.Items = c.Request.Items[:5] },
		"from here": func(c *message.Call) { c.Key = []byte("a") },
	} {
		call, done := hintsFor("key")
		change(call)
		r.Pull(call)
		if reply := <-done; reply.Status != message.Invalid {
			t.Errorf("%s: %s", name, reply.Status)
		}
	}
}
