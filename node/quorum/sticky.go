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

// localRead is what this node's own replica has in memory, which it answers before Send returns.
type localRead struct {
	done   bool
	status message.Status
	ballot record.Ballot
	record []byte
	room   []byte // backs record
}

// Done implements message.Completion.
func (r *localRead) Done(call *message.Call) {
	r.done, r.status, r.ballot, r.record = true, call.Reply.Status, call.Reply.Ballot, call.Reply.Record
}

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
	if !c.readLocal(l, g, false) || l.local.ballot != acc || len(l.local.record) == 0 {
		return record.Ballot{}, false
	}
	record.View(l.local.record, &l.state)
	return next, true
}

// readLocal asks the local replica for what it has of l's key; patient: also on the disk. l.local is that, if true, until
// the next read of l.
func (c *Coordinator) readLocal(l *lane, g *Group, patient bool) bool {
	r, call := &l.local, c.call()
	defer c.recycle(call)
	r.done = false
	call.Request = message.Request{Kind: message.Read, Partition: l.p, Epoch: g.conf.Epoch, Hash: l.hash, Key: l.key,
		InMemory: true, Unborn: true}
	call.Completion, call.Room = r, r.room
	local := g.members[g.self].replica
	local.Send(call)
	r.room, call.Room = call.Room, nil
	if !r.done {
		return false
	}
	if patient && r.status == message.Busy {
		w := diskRead{r, make(chan struct{})}
		call.Completion, call.InMemory = w, false
		local.Send(call)
		<-w.done
	}
	return r.status == message.OK
}

// diskRead waits for a read that may take the disk.
type diskRead struct {
	to   *localRead
	done chan struct{}
}

// Done implements message.Completion.
func (w diskRead) Done(call *message.Call) {
	w.to.Done(call)
	w.to.record = slices.Clone(call.Reply.Record)
	close(w.done)
}
