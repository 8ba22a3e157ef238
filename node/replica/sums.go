package replica

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// sums has, by partition, the sum of each leaf of its records, kept with each write: what is told to a
// replica that compares (anti-entropy), at no more than the price of a copy. A table is made when its partition
// is first written to or compared, 4 KiB each.
type sums struct {
	tables []atomic.Pointer[leaves]
	// scanning is held by whoever scans a partition to learn the sums that an earlier life wrote.
	scanning sync.Mutex
}

// leaves are a partition's; each is guarded by the stripe with its number, since a leaf is the keys of one
// stripe. So a write pays for them with an addition, under a lock that it holds anyway.
type leaves [message.Leaves]leaf

type leaf struct {
	// sum, if known, is that of all records of the leaf that are durable here.
	sum   uint64
	known bool
	// touched: since the scan under way began, a write was under way.
	touched bool
	// writes that are staged and not yet visible, or visible and not yet counted.
	writes uint32
}

func (s *sums) of(p ring.Partition) *leaves {
	t := s.tables[p].Load()
	if t == nil {
		fresh := new(leaves)
		if !s.tables[p].CompareAndSwap(nil, fresh) {
			return s.tables[p].Load()
		}
		t = fresh
	}
	return t
}

// staged notes that a write of a leaf is on its way. The stripe is locked.
func (s *sums) staged(p ring.Partition, hash uint64) {
	l := &s.of(p)[message.Leaf(hash)]
	l.writes++
	l.touched = true
}

// ended notes that a write has changed the leaf's sum by change, or, lost, that nobody knows by how
// much. The stripe is locked.
func (s *sums) ended(p ring.Partition, hash, change uint64, lost bool) {
	l := &s.of(p)[message.Leaf(hash)]
	l.writes--
	l.sum += change
	if lost {
		l.known, l.touched = false, true
	}
}

// sums answers with the sums of a partition's leaves: of each of its records, a hash of key and ballot.
// Two replicas hold the same exactly if their sums are equal, but for one in 2^64. A replica that is told
// the root of the asker's, and has the same, answers with nothing.
func (r *Replica) sumsOf(call *message.Call, patient bool) {
	call.Reply.Ballot = r.PurgeFence(call.Partition)
	// While the partition moves, they stand for all that counted for a quorum of the old members: see settle.
	if !r.isSettled(call.Partition, call.Epoch) {
		if !patient {
			r.aside(call)
			return
		}
		if err := r.settle(call.Partition, call.Epoch); err != nil {
			r.refuse(call, err)
			call.Completion.Done(call)
			return
		}
	}
	all, known := r.knownSums(call.Partition)
	if !known {
		if !r.scannable(call, patient) {
			return
		}
		var err error
		if all, err = r.scanSums(call.Partition); err != nil {
			r.refuse(call, err)
			call.Completion.Done(call)
			return
		}
	}
	if items := call.Request.Items; len(items) != 8 || binary.LittleEndian.Uint64(items) != message.Root(all[:]) {
		items = call.Room[:0]
		for _, s := range all {
			items = binary.LittleEndian.AppendUint64(items, s)
		}
		call.Reply.Items, call.Room = items, items
	}
	call.Completion.Done(call)
}

// sumsOfNothing notes that p, to which nobody can write now, holds nothing.
func (r *Replica) sumsOfNothing(p ring.Partition) {
	t := r.sums.of(p)
	for i := range t {
		st := &r.stripes[i]
		st.mu.Lock()
		if t[i].writes == 0 {
			t[i].sum, t[i].known = 0, true
		}
		st.mu.Unlock()
	}
}

// knownSums are the sums of a partition, if all are known.
func (r *Replica) knownSums(p ring.Partition) (all [message.Leaves]uint64, known bool) {
	t := r.sums.of(p)
	for i := range t {
		st := &r.stripes[i]
		st.mu.Lock()
		all[i], known = t[i].sum, t[i].known
		st.mu.Unlock()
		if !known {
			return all, false
		}
	}
	return all, true
}

// scanSums reads a partition, and keeps the sums of the leaves that nobody wrote to meanwhile. Those of the
// others are as the scan found them; the next one may have more luck.
func (r *Replica) scanSums(p ring.Partition) (all [message.Leaves]uint64, err error) {
	r.sums.scanning.Lock()
	defer r.sums.scanning.Unlock()
	t := r.sums.of(p)
	for i := range t {
		st := &r.stripes[i]
		st.mu.Lock()
		t[i].touched = t[i].writes > 0
		st.mu.Unlock()
	}
	err = r.opts.Storage.(Scanner).Scan(p, nil, func(key, enc []byte) error {
		hash := ring.Hash(key)
		all[message.Leaf(hash)] += message.Term(hash, record.PeekBallot(enc))
		return nil
	})
	if err != nil {
		return all, err
	}
	for i := range t {
		st := &r.stripes[i]
		st.mu.Lock()
		switch {
		case t[i].known:
			all[i] = t[i].sum
		case !t[i].touched:
			t[i].sum, t[i].known = all[i], true
		}
		st.mu.Unlock()
	}
	return all, nil
}
