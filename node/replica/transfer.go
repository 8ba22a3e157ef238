package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Scanner is a Storage that can list a partition. Replicas of moving partitions need one.
type Scanner interface {
	// Scan calls fn with the partition's records whose keys are greater than after, in the order of
	// keys: all that were committed before the call, and perhaps some committed since. The slices are
	// valid until fn returns. It ends with fn's first error.
	Scan(p ring.Partition, after []byte, fn func(key, enc []byte) error) error
}

// transfers is what a replica knows of the moves of its partitions.
type transfers struct {
	// settled has, by partition, the epoch since which no write of an earlier one can become durable
	// here: from then on a scan misses nothing that counted for a quorum of an earlier epoch.
	settled []atomic.Uint32
	// pulled has, by partition, the joint epoch for which this node has what its old members held.
	pulled []atomic.Uint32
	// settling is a lock that whoever waits for the disk may hold.
	settling chan struct{}
	mu       sync.Mutex
	waiting  map[ring.Partition]uint32 // to be settled at that epoch, which is followed here
}

func newTransfers(partitions int) transfers {
	return transfers{settled: make([]atomic.Uint32, partitions), pulled: make([]atomic.Uint32, partitions),
		settling: make(chan struct{}, 1), waiting: map[ring.Partition]uint32{}}
}

// PulledName is the Journal name of the mark that a partition was pulled.
func PulledName(p ring.Partition) string { return fmt.Sprintf("pulled/%d", p) }

// LoadPulled reads the marks and purge fences of earlier lives. It comes before the replica answers anything.
func (r *Replica) LoadPulled(meta func(name string) ([]byte, error)) error {
	for p := range r.transfers.pulled {
		b, err := meta(PulledName(ring.Partition(p)))
		switch {
		case err != nil:
			return fmt.Errorf("replica: mark of partition %d: %w", p, err)
		case len(b) == 4:
			r.transfers.pulled[p].Store(binary.BigEndian.Uint32(b))
		case b != nil:
			return fmt.Errorf("replica: mark of partition %d has %d bytes: %w", p, len(b), record.ErrCorrupt)
		}
		if b, err = meta(CleanName(ring.Partition(p))); err != nil {
			return fmt.Errorf("replica: mark of partition %d: %w", p, err)
		}
		if len(b) == 4 {
			r.cleans.done[p].Store(binary.BigEndian.Uint32(b))
		}
		if err := r.loadPurgeFence(meta, ring.Partition(p)); err != nil {
			return err
		}
	}
	return nil
}

// Pulled reports whether this node has what the old members of p's joint configuration epoch held.
func (r *Replica) Pulled(p ring.Partition, epoch uint32) bool {
	return r.transfers.pulled[p].Load() == epoch
}

// MarkPulled says so, durably; done hears when it is. All that was learned before is on disk then. fence
// is the highest purge fence of those that it was pulled from: what they have purged is not to come
// back here. It waits for the disk.
func (r *Replica) MarkPulled(p ring.Partition, epoch uint32, fence record.Ballot, done func(error)) {
	if err := r.raisePurgeFence(p, fence); err != nil {
		done(err)
		return
	}
	r.opts.Journal.PutMeta(PulledName(p), binary.BigEndian.AppendUint32(nil, epoch), committed(func(err error) {
		if err == nil {
			r.transfers.pulled[p].Store(epoch)
		}
		done(err)
	}))
}

// scannable reports whether call may scan the storage now. If not, it is answered, or will be on a
// goroutine that may wait for the disk.
func (r *Replica) scannable(call *message.Call, patient bool) bool {
	if _, ok := r.opts.Storage.(Scanner); !ok {
		call.Reply.Status = message.NotReplica
		call.Completion.Done(call)
		return false
	}
	if !patient {
		r.aside(call)
	}
	return patient
}

var errPageFull = errors.New("page full")

// transfer answers with a page of a partition that moves away. It reads the disk, on a goroutine of
// its own.
func (r *Replica) transfer(call *message.Call, patient bool) {
	conf := r.opts.Configurations.Configuration(call.Partition)
	if conf.Epoch != call.Epoch || len(call.Request.Items) == 0 && (len(conf.Next) == 0 || !slices.Contains(conf.Members, r.opts.Self)) {
		call.Reply.Status = message.NotReplica
		call.Completion.Done(call)
		return
	}
	if !r.scannable(call, patient) {
		return
	}
	var leaves *message.LeafSet
	if len(call.Request.Items) > 0 {
		leaves = (*message.LeafSet)(call.Request.Items)
	}
	if err := r.settle(call.Partition, call.Epoch); err != nil {
		r.refuse(call, err)
		call.Completion.Done(call)
		return
	}
	page := message.BeginPage(call.Room[:0])
	err := r.opts.Storage.(Scanner).Scan(call.Partition, call.Key, func(key, enc []byte) error {
		if leaves != nil && !leaves.Has(message.Leaf(ring.Hash(key))) {
			return nil
		}
		var ok bool
		if page, ok = message.AppendRow(page, key, enc); !ok {
			return errPageFull
		}
		return nil
	})
	if err != nil && !errors.Is(err, errPageFull) {
		r.refuse(call, err)
	} else {
		call.Reply.Items, call.Room = page, page
		call.Reply.Ballot = r.PurgeFence(call.Partition)
	}
	call.Completion.Done(call)
}

// Page calls fn with the records of p behind the key after that lie in leaves, until they have limit bytes. Then it returns the last one's key, since there may be
// others; else nil. It is a Transfer to this node itself: it reads the disk once for many of a transfer's pages, and blocks for that; fn must not block. What is on
// its way to the disk may be missing. It ends with fn's first error.
func (r *Replica) Page(p ring.Partition, epoch uint32, after []byte, leaves *message.LeafSet, limit int, fn func(hash uint64, key, enc []byte) error) (last []byte, err error) {
	scanner, ok := r.opts.Storage.(Scanner)
	if s := r.serve(p, epoch, len(after)); s != message.OK || !ok {
		return nil, fmt.Errorf("replica: records of partition %d: %s", p, s)
	}
	size := 0
	err = scanner.Scan(p, after, func(key, enc []byte) error {
		hash := ring.Hash(key)
		if !leaves.Has(message.Leaf(hash)) {
			return nil
		}
		if err := fn(hash, key, enc); err != nil {
			return err
		}
		if size += len(key) + len(enc); size < limit {
			return nil
		}
		last = slices.Clone(key)
		return errPageFull
	})
	if errors.Is(err, errPageFull) {
		return last, nil
	}
	return nil, err
}

// isSettled reports whether there is nothing to settle for epoch's configuration of p.
func (r *Replica) isSettled(p ring.Partition, epoch uint32) bool {
	return len(r.opts.Configurations.Configuration(p).Next) == 0 || r.transfers.settled[p].Load() == epoch
}

// settle returns when no accept of an epoch before the joint one, which is followed here, can become
// durable any more: whoever checked the epoch before has staged its write and let go of its stripe, and
// the log, which is in order, is durable beyond it.
// Those that wait while another flushes share the next one.
func (r *Replica) settle(p ring.Partition, epoch uint32) error {
	if r.isSettled(p, epoch) {
		return nil
	}
	t := &r.transfers
	t.mu.Lock()
	t.waiting[p] = epoch
	t.mu.Unlock()
	t.settling <- struct{}{}
	defer func() { <-t.settling }()
	if r.isSettled(p, epoch) {
		return nil
	}
	t.mu.Lock()
	waiting := t.waiting
	t.waiting = map[ring.Partition]uint32{}
	t.mu.Unlock()
	if err := r.flush(); err != nil {
		return err
	}
	waiting[p] = epoch // of one that failed before
	for p, epoch := range waiting {
		t.settled[p].Store(epoch)
	}
	return nil
}

// answerPulled answers Pulled. A replica that stays needs nothing, if even without what it may have
// missed a read quorum of the new members meets every write that counted: see placement's DESIGN.
func (r *Replica) answerPulled(call *message.Call) {
	if !r.Pulled(call.Partition, call.Epoch) {
		call.Reply.Status = message.Busy
	}
	call.Completion.Done(call)
}

// purged reports whether the state at b may be one that all members have forgotten. What the survivors of a lost partition gather is not:
// nobody can purge there. While a partition moves
// nobody purges, and what a new member learns may be older than a fence that it has of an earlier membership.
func (r *Replica) purged(call *message.Call, b record.Ballot) bool {
	return call.Kind != message.Gather && len(r.opts.Configurations.Configuration(call.Partition).Next) == 0 && !r.PurgeFence(call.Partition).Less(b)
}

// Learn stores a record that another replica had accepted, unless this one has a newer state. It is
// no vote: no promise stands against it. So it is for transfers to a new member, since whatever was
// promised here for a higher ballot, the quorum that promised it includes a quorum of the old members, who
// had this record to tell (node/placement/DESIGN.md); and for what is known to be chosen. The call is an Accept's, with the epoch of the joint configuration; it must not
// be used by a goroutine that may not wait for the disk.
func (r *Replica) Learn(call *message.Call) {
	call.Reply = message.Reply{Status: message.OK}
	b := record.PeekBallot(call.Request.Record)
	if b.IsZero() {
		call.Reply.Status = message.Invalid
		call.Completion.Done(call)
		return
	}
	// Into memory first, so that the stripe's lock is not held while the disk works.
	if _, _, known := r.opts.Storage.PeekBallot(call.Partition, call.Hash, call.Key); !known {
		_, _, _ = r.opts.Storage.Get(nil, call.Partition, call.Hash, call.Key)
	}
	st := r.stripe(call.Hash)
	st.mu.Lock()
	if s := r.serve(call.Partition, call.Epoch, len(call.Key)); s != message.OK {
		st.mu.Unlock()
		call.Reply.Status = s
		call.Completion.Done(call)
		return
	}
	acc, readable, _ := r.accepted(st, call, true)
	switch {
	case r.purged(call, b):
		r.nack(call, r.PurgeFence(call.Partition))
	case readable && !acc.Less(b): // staged, perhaps: then it is durable before whatever is put later
	case !r.opts.Fence.Staged(b.Stamp.Ticks()):
		call.Reply.Status = message.Busy
	default:
		r.take(st, call, b, b, acc, readable)
		return
	}
	st.mu.Unlock()
	call.Completion.Done(call)
}
