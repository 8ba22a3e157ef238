package quorum

import (
	"sync"

	"kai/node/message"
	"kai/node/record"
)

// sticky remembers the keys this coordinator wrote last: the ballot of the chosen state, and the
// next ballot, which a write quorum promised along with it. With both, the next mutation needs no
// Prepare. It is a fixed-size table; keys that share a place only lose the shortcut. Two keys with
// equal hashes cannot be taken for each other, because the ballot must match the accepted one.
type sticky struct {
	locks   [stickyLocks]sync.Mutex
	entries []stickyEntry
}

type stickyEntry struct {
	hash      uint64
	acc, next record.Ballot
}

const (
	stickyLocks = 64
	// defaultSticky is the number of keys remembered: 10 MiB.
	defaultSticky = 1 << 18
)

func (s *sticky) init(size int) {
	if size == 0 {
		size = defaultSticky
	}
	s.entries = make([]stickyEntry, size)
}

func (s *sticky) at(hash uint64) (*stickyEntry, *sync.Mutex) {
	i := (hash ^ hash>>32) % uint64(len(s.entries))
	return &s.entries[i], &s.locks[i%stickyLocks]
}

// take removes and returns the entry: a ballot is used once.
func (s *sticky) take(hash uint64) (stickyEntry, bool) {
	e, mu := s.at(hash)
	mu.Lock()
	defer mu.Unlock()
	if e.hash != hash || e.acc.IsZero() {
		return stickyEntry{}, false
	}
	out := *e
	*e = stickyEntry{}
	return out, true
}

func (s *sticky) put(hash uint64, acc, next record.Ballot) {
	e, mu := s.at(hash)
	mu.Lock()
	*e = stickyEntry{hash, acc, next}
	mu.Unlock()
}

// localRead asks this node's own replica for what it has in memory, which is answered before Send
// returns.
type localRead struct {
	call message.Call
	done bool
}

// Done implements message.Completion.
func (r *localRead) Done(*message.Call) { r.done = true }

// fromSticky fills l.state from the local replica if it still holds the state this coordinator
// wrote last, and returns the ballot to propose with.
func (c *Coordinator) fromSticky(l *lane, g *Group) (record.Ballot, bool) {
	e, ok := c.sticky.take(l.hash)
	if !ok || g.self < 0 || e.next.Epoch != g.conf.Epoch {
		return record.Ballot{}, false
	}
	r := &l.local
	r.done = false
	r.call.Request = message.Request{Kind: message.Read, Partition: l.p, Epoch: g.conf.Epoch, Hash: l.hash, Key: l.keyBytes,
		InMemory: true}
	r.call.Completion = r
	g.members[g.self].replica.Send(&r.call)
	if !r.done || r.call.Reply.Status != message.OK || r.call.Reply.Ballot != e.acc || len(r.call.Reply.Record) == 0 {
		return record.Ballot{}, false
	}
	record.View(r.call.Reply.Record, &l.state)
	return e.next, true
}
