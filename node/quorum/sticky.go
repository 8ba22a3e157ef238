package quorum

import (
	"slices"
	"sync"

	"kai/node/message"
	"kai/node/record"
)

// sticky remembers the keys this coordinator wrote last: the ballot of the chosen state, and the
// next ballot, which a write quorum promised along with it. With both, the next mutation needs no
// Prepare. It is a fixed-size table; a key that finds its bucket full takes the place of the one that
// was written least recently, which only loses the shortcut. Two keys with equal hashes cannot be
// taken for each other, because the ballot must match the accepted one.
type sticky struct {
	locks   [stickyLocks]sync.Mutex
	buckets []stickyBucket
}

// stickyBucket is two cache lines.
type stickyBucket [4]stickyEntry

// stickyEntry is a key's ballots, both of one epoch; free if next is 0.
type stickyEntry struct {
	hash      uint64
	acc, next record.Stamp
	epoch     uint32
}

const (
	stickyLocks = 64
	// defaultSticky is the number of keys remembered: 8 MiB.
	defaultSticky = 1 << 18
)

func (s *sticky) init(size int) {
	if size == 0 {
		size = defaultSticky
	}
	s.buckets = make([]stickyBucket, (size+3)/4)
}

func (s *sticky) at(hash uint64) (*stickyBucket, *sync.Mutex) {
	i := (hash ^ hash>>32) % uint64(len(s.buckets))
	return &s.buckets[i], &s.locks[i%stickyLocks]
}

// take removes and returns the entry: a ballot is used once.
func (s *sticky) take(hash uint64) (acc, next record.Ballot, ok bool) {
	b, mu := s.at(hash)
	mu.Lock()
	defer mu.Unlock()
	for i := range b {
		if e := &b[i]; e.hash == hash && e.next != 0 {
			acc = record.Ballot{Epoch: e.epoch, Stamp: e.acc}
			next = record.Ballot{Epoch: e.epoch, Stamp: e.next}
			*e = stickyEntry{}
			return acc, next, true
		}
	}
	return acc, next, false
}

// put remembers a key. Ballots of two epochs are not worth it: the shortcut ends with the epoch.
func (s *sticky) put(hash uint64, acc, next record.Ballot) {
	if acc.Epoch != next.Epoch {
		return
	}
	b, mu := s.at(hash)
	mu.Lock()
	defer mu.Unlock()
	e := &b[0]
	for i := range b {
		if b[i].hash == hash {
			e = &b[i]
			break
		}
		if b[i].next < e.next {
			e = &b[i]
		}
	}
	*e = stickyEntry{hash, acc.Stamp, next.Stamp, next.Epoch}
}

// localRead asks this node's own replica for what it has in memory, which is answered before Send
// returns.
type localRead struct {
	call message.Call
	done bool
}

// Done implements message.Completion.
func (r *localRead) Done(*message.Call) { r.done = true }

// fromSticky fills l.state if what this coordinator knows makes a Prepare needless, and returns the ballot to propose with:
// the local replica still holds, in memory, the state this coordinator wrote last; or else see fromWide. Only if patient, it
// may wait for the disk.
func (c *Coordinator) fromSticky(l *lane, g *Group, patient bool) (record.Ballot, bool) {
	acc, next, ok := c.sticky.take(l.hash)
	if g.self < 0 {
		return record.Ballot{}, false
	}
	w := c.wideOf(l.p, g)
	if !ok || next.Epoch != g.conf.Epoch || w != nil && next.Less(w.ballot) { // a promise given since is above it
		return c.fromWide(l, g, w, patient)
	}
	reply, ok := c.readLocal(l, g, false)
	if !ok || reply.Ballot != acc || len(reply.Record) == 0 {
		return record.Ballot{}, false
	}
	record.View(reply.Record, &l.state)
	return next, true
}

// readLocal asks the local replica for what it has of l's key; patient: also on the disk. The reply is good
// until the next read of l.
func (c *Coordinator) readLocal(l *lane, g *Group, patient bool) (*message.Reply, bool) {
	r := &l.local
	r.done = false
	r.call.Request = message.Request{Kind: message.Read, Partition: l.p, Epoch: g.conf.Epoch, Hash: l.hash, Key: l.keyBytes,
		InMemory: true, Unborn: true}
	r.call.Completion = r
	local := g.members[g.self].replica
	if local.Send(&r.call); !r.done {
		return nil, false
	}
	if patient && r.call.Reply.Status == message.Busy {
		w := &diskRead{done: make(chan struct{})}
		call := &message.Call{Request: r.call.Request, Completion: w}
		call.InMemory = false
		local.Send(call)
		<-w.done
		return &w.reply, w.reply.Status == message.OK
	}
	return &r.call.Reply, r.call.Reply.Status == message.OK
}

// diskRead waits for a read that may take the disk.
type diskRead struct {
	reply message.Reply
	done  chan struct{}
}

// Done implements message.Completion.
func (w *diskRead) Done(call *message.Call) {
	w.reply = call.Reply
	w.reply.Record = slices.Clone(call.Reply.Record)
	close(w.done)
}
