package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Purger is a Storage that can forget a record, in the order of its Puts: afterwards the key was never
// written. done hears as of a Put.
type Purger interface {
	Purge(p ring.Partition, hash uint64, key []byte, done interface{ Committed(error) })
}

// purges is what a replica knows of the dead records of its partitions.
type purges struct {
	// fences has, by partition, the ballot up to which dead records may have been purged: nothing at or
	// below it is accepted, and a key that is not there counts as one whose lineage was cut off there.
	fences []atomic.Pointer[record.Ballot]
	// raising is a lock that whoever waits for the disk may hold.
	raising chan struct{}
}

func newPurges(partitions int) purges {
	return purges{fences: make([]atomic.Pointer[record.Ballot], partitions), raising: make(chan struct{}, 1)}
}

// PurgeFenceName is the Journal name of a partition's purge fence.
func PurgeFenceName(p ring.Partition) string { return fmt.Sprintf("purge/%d", p) }

func (r *Replica) loadPurgeFence(meta func(name string) ([]byte, error), p ring.Partition) error {
	b, err := meta(PurgeFenceName(p))
	switch {
	case err != nil:
		return fmt.Errorf("replica: purge fence of partition %d: %w", p, err)
	case len(b) == 12:
		f := record.Ballot{Epoch: binary.BigEndian.Uint32(b), Stamp: record.Stamp(binary.BigEndian.Uint64(b[4:]))}
		r.purges.fences[p].Store(&f)
		r.raiseFloor(p, f)
	case b != nil:
		return fmt.Errorf("replica: purge fence of partition %d has %d bytes: %w", p, len(b), record.ErrCorrupt)
	}
	return nil
}

// PurgeFence is the ballot up to which dead records of p may have been purged; zero for none.
func (r *Replica) PurgeFence(p ring.Partition) record.Ballot {
	if f := r.purges.fences[p].Load(); f != nil {
		return *f
	}
	return record.Ballot{}
}

// raisePurgeFence puts the purge fence of p at f at least, epoch and stamp each for itself. It returns
// when that is durable.
func (r *Replica) raisePurgeFence(p ring.Partition, f record.Ballot) error {
	r.purges.raising <- struct{}{}
	defer func() { <-r.purges.raising }()
	old := r.PurgeFence(p)
	f = record.Ballot{Epoch: max(f.Epoch, old.Epoch), Stamp: max(f.Stamp, old.Stamp)}
	if f == old || r.opts.Without&RulePurgeFence != 0 {
		return nil // in force, and so durable: who raised it held the lock until then
	}
	r.purges.fences[p].Store(&f)
	r.raiseFloor(p, f)
	durable := make(chan error, 1)
	value := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, f.Epoch), uint64(f.Stamp))
	r.opts.Journal.PutMeta(PurgeFenceName(p), value, committed(func(err error) { durable <- err }))
	err := <-durable
	if err != nil {
		r.purges.fences[p].Store(&old)
	}
	return err
}

// unborn appends, for a key of p that is not there, the state that a coordinator must start from: nobody can tell
// any more which mutations up to the purge fence were part of it.
func (r *Replica) unborn(dst []byte, p ring.Partition, key []byte) []byte {
	f := r.PurgeFence(p)
	if f.IsZero() {
		return nil
	}
	return record.Append(dst, key, &record.Record{Floor: f.Stamp})
}

// purge answers a Purge: for each dead record of its items, one byte. With Digest it confirms: 1 says that
// this replica holds exactly that state, and it is dead here, too, or that it holds nothing; and that nothing
// older can come to it any more, by the fence. Without, which is for states that all members confirmed, it
// forgets those that it still holds: 1 says that it holds nothing now.
func (r *Replica) purge(call *message.Call, patient bool) {
	f := call.Request.Ballot
	conf := r.opts.Configurations.Configuration(call.Partition)
	_, ok := r.opts.Storage.(Purger)
	switch {
	case !ok || conf.Epoch != call.Epoch || len(conf.Next) > 0:
		call.Reply.Status = message.NotReplica
	case f.Epoch > call.Epoch || r.tooFarAhead(f):
		call.Reply.Status = message.Invalid
	case !patient:
		r.aside(call)
		return
	default:
		r.purgeItems(call, f)
		return
	}
	call.Completion.Done(call)
}

func (r *Replica) purgeItems(call *message.Call, f record.Ballot) {
	if call.Digest {
		if err := r.raisePurgeFence(call.Partition, f); err != nil {
			r.refuse(call, err)
			call.Completion.Done(call)
			return
		}
	}
	fence := r.PurgeFence(call.Partition)
	if r.opts.Without&RulePurgeFence != 0 {
		fence = f
	}
	w := &purging{}
	answers := call.Room[:0]
	for rest := call.Request.Items; len(rest) > 0; {
		key, b, next, ok := message.NextDead(rest)
		if !ok || fence.Less(b) {
			call.Reply.Status = message.Invalid
			break
		}
		rest = next
		answers = append(answers, r.purgeOne(call, w, key, b, fence))
	}
	w.wait.Wait()
	if err := w.err; err != nil {
		r.refuse(call, err)
	}
	if call.Reply.Status == message.OK {
		call.Reply.Items, call.Room = answers, answers
	}
	call.Completion.Done(call)
}

// purgeOne confirms, or forgets, one key's state at b.
func (r *Replica) purgeOne(call *message.Call, w *purging, key []byte, b, fence record.Ballot) byte {
	p, hash := call.Partition, ring.Hash(key)
	// Into memory first, so that the stripe's lock is not held while the disk works.
	enc, _, _ := r.opts.Storage.Get(nil, p, hash, key)
	st := r.stripe(hash)
	st.mu.Lock()
	if s := r.serve(p, call.Epoch, len(key)); s != message.OK || st.pending(hash) != nil {
		st.mu.Unlock()
		return 0
	}
	enc, found, _, err := r.load(p, hash, key, enc[:0], true)
	var answer byte
	switch {
	case err != nil:
	case !found:
		answer = 1
	case record.PeekBallot(enc) != b:
	case call.Digest:
		if dead, _ := record.Dead(enc, uint32(r.opts.Wall().Add(-MaxLead).Unix())); dead && record.PeekVersion(enc) <= fence.Stamp {
			answer = 1
		}
	default:
		one := &message.Call{Request: message.Request{Kind: message.Purge, Partition: p, Epoch: call.Epoch, Hash: hash, Key: key}, Completion: w}
		one.Reply.Status = message.OK
		w.wait.Add(1)
		answered := r.stage(st, one, record.Ballot{}, b, true)
		st.mu.Unlock()
		if answered != nil {
			answered.finish()
		}
		return 1
	}
	st.mu.Unlock()
	return answer
}

// purging waits for the records that a message has forgotten.
type purging struct {
	wait sync.WaitGroup
	mu   sync.Mutex
	err  error
}

var errNotPurged = errors.New("replica: not purged")

// Done implements message.Completion.
func (w *purging) Done(call *message.Call) {
	if call.Reply.Status != message.OK {
		w.mu.Lock()
		w.err = errNotPurged
		w.mu.Unlock()
	}
	w.wait.Done()
}

// Mortals changes when a record of p is written that is dead, or expires some day.
func (r *Replica) Mortals(p ring.Partition) uint32 { return r.parts[p].mortals.Load() }

// Dead lists records of p behind the key after that have been dead for age, at most limit of them, for a
// Purge. It reads the disk.
func (r *Replica) Dead(p ring.Partition, after []byte, age time.Duration, limit int) (message.Dead, error) {
	dead := message.Dead{Due: -1}
	scanner, ok := r.opts.Storage.(Scanner)
	if !ok {
		return dead, nil
	}
	now, count := r.opts.Wall(), 0
	err := scanner.Scan(p, after, func(key, enc []byte) error {
		b, version := record.PeekBallot(enc), record.PeekVersion(enc)
		is, expires := record.Dead(enc, uint32(now.Add(-MaxLead).Unix()))
		if !is && expires == 0 {
			return nil
		}
		since := max(b.Stamp, version).Time()
		if expires != 0 {
			if at := time.Unix(int64(expires), 0).Add(MaxLead); at.After(since) {
				since = at
			}
		}
		if wait := since.Add(age).Sub(now); wait > 0 {
			if dead.Due < 0 || wait < dead.Due {
				dead.Due = wait
			}
			return nil
		}
		if count == limit {
			dead.More = true
			return errPageFull
		}
		count++
		dead.After = append(dead.After[:0], key...)
		dead.Items = message.AppendDead(dead.Items, key, b)
		dead.Fence = record.Ballot{Epoch: max(dead.Fence.Epoch, b.Epoch), Stamp: max(dead.Fence.Stamp, b.Stamp+1, version)}
		return nil
	})
	if errors.Is(err, errPageFull) {
		err = nil
	}
	return dead, err
}
