package replica

import (
	"encoding/binary"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// leaves are a partition's; each is guarded by the stripe with its number, since a leaf is the keys of one
// stripe. A table is made when its partition is first written to, promised or compared, 16 KiB each.
type leaves [message.Leaves]leaf

// leaf is what a replica remembers of the keys of one leaf, in a cache line: a write comes from memory
// with all of it at once.
type leaf struct {
	// sum, if known, is that of all records of the leaf that are durable here. It is kept with each write, by an
	// addition under a lock that is held anyway: so that it can be told to a replica that compares
	// (anti-entropy) at no more than the price of a copy.
	sum uint64
	// Promises, by slot, in two pieces, so that they fit.
	stamps [leafSlots]record.Stamp
	epochs [leafSlots]uint32
	// writes that are staged and not yet visible, or visible and not yet counted.
	writes uint32
	known  bool
	// touched: since the scan under way began, a write was under way.
	touched bool
}

// leafSlots is how many promises a leaf has at most. Keys that share one share promises.
const leafSlots = 4

// promised is what was promised in slot i.
func (l *leaf) promised(i int) record.Ballot {
	return record.Ballot{Epoch: l.epochs[i], Stamp: l.stamps[i]}
}

// promise raises what is promised in slot i to b.
func (l *leaf) promise(i int, b record.Ballot) {
	if l.promised(i).Less(b) {
		l.epochs[i], l.stamps[i] = b.Epoch, b.Stamp
	}
}

// leaves returns those of p.
func (r *Replica) leaves(p ring.Partition) *leaves {
	at := &r.parts[p].leaves
	t := at.Load()
	if t == nil {
		fresh := new(leaves)
		if !at.CompareAndSwap(nil, fresh) {
			return at.Load()
		}
		t = fresh
	}
	return t
}

// ended notes that a write has changed the leaf's sum by change, or, lost, that nobody knows by how
// much. The stripe is locked.
func (l *leaf) ended(change uint64, lost bool) {
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
	t := r.leaves(p)
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
	t := r.leaves(p)
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
	r.scanning.Lock()
	defer r.scanning.Unlock()
	t := r.leaves(p)
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
