package replica

import (
	"errors"
	"fmt"
	"time"

	"kai/node/clock"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

func isCorrupt(err error) bool { return errors.Is(err, record.ErrCorrupt) }

// ConfigurationName is the Journal name of a partition's configuration.
func ConfigurationName(p ring.Partition) string { return fmt.Sprintf("configuration/%d", p) }

// promised is the promise in force for hash: never below the partition's floor.
func (r *Replica) promised(p ring.Partition, hash uint64, epoch uint32) record.Ballot {
	b, floor := r.leaves(p)[message.Leaf(hash)].promised(r.slot(hash)), r.floor(p, epoch)
	if b.Less(floor) {
		return floor
	}
	return b
}

// promise raises the promise for hash to b.
func (r *Replica) promise(p ring.Partition, hash uint64, b record.Ballot) {
	r.leaves(p)[message.Leaf(hash)].promise(r.slot(hash), b)
}

// slot is the place of hash among the promises of its leaf.
func (r *Replica) slot(hash uint64) int {
	return int(hash / message.Leaves % uint64(r.opts.PromiseSlots/message.Leaves))
}

// tooFarAhead guards the hybrid time: a ballot from a clock that runs away is not followed.
func (r *Replica) tooFarAhead(b record.Ballot) bool {
	return b.Stamp.Ticks() > record.Ticks(r.opts.Wall().Add(MaxLead))
}

// prepare promises to accept nothing below call.Ballot, and tells the accepted state. The promise
// counts only once the fence above it is durable.
func (r *Replica) prepare(call *message.Call, patient bool) {
	if r.tooFarAhead(call.Request.Ballot) {
		r.counters.ClockRejects.Add(1)
		call.Reply.Status = message.ClockReject
		call.Completion.Done(call)
		return
	}
	st := r.stripe(call.Hash)
	st.mu.Lock()
	if p := st.pending(call.Hash); p != nil {
		r.park(st, p, call)
		return
	}
	promised := r.promised(call.Partition, call.Hash, call.Epoch)
	if call.Request.Ballot.Less(promised) {
		r.nack(call, promised)
		st.mu.Unlock()
		call.Completion.Done(call)
		return
	}
	enc, found, known, err := r.load(call.Partition, call.Hash, call.Key, call.Room[:0], patient)
	call.Room = enc
	if !known {
		st.mu.Unlock()
		r.aside(call)
		return
	}
	if err != nil {
		st.mu.Unlock()
		r.refuse(call, err)
		call.Completion.Done(call)
		return
	}
	if found {
		acc := record.PeekBallot(enc)
		if !acc.Less(call.Request.Ballot) {
			r.nack(call, acc)
			st.mu.Unlock()
			call.Completion.Done(call)
			return
		}
		call.Reply.Ballot, call.Reply.Record = acc, enc
	} else if enc = r.unborn(enc, call.Partition, call.Key); enc != nil {
		call.Reply.Record, call.Room = enc, enc
	}
	r.promise(call.Partition, call.Hash, call.Request.Ballot)
	st.mu.Unlock()
	r.whenCovered(call, call.Request.Ballot)
}

func (r *Replica) nack(call *message.Call, max record.Ballot) {
	r.counters.Nacks.Add(1)
	call.Reply = message.Reply{Status: message.Nack, Ballot: max}
}

// accept stores call.Record unless a higher ballot was promised, and promises call.Next with it.
func (r *Replica) accept(call *message.Call, patient bool) {
	b := record.PeekBallot(call.Request.Record)
	top := b
	if top.Less(call.Next) {
		top = call.Next
	}
	switch {
	case b.IsZero():
		call.Reply.Status = message.Invalid
		call.Completion.Done(call)
		return
	case r.tooFarAhead(top):
		r.counters.ClockRejects.Add(1)
		call.Reply.Status = message.ClockReject
		call.Completion.Done(call)
		return
	}
	st := r.stripe(call.Hash)
	st.mu.Lock()
	// Again, now that the stripe is held: see settle.
	if (call.Epoch != r.parts[call.Partition].serves.Load() || r.sealed.Load()) && !r.admit(call) {
		st.mu.Unlock()
		call.Completion.Done(call)
		return
	}
	promised := r.promised(call.Partition, call.Hash, call.Epoch)
	acc, readable, known := r.accepted(st, call, patient)
	if !known {
		st.mu.Unlock()
		r.aside(call)
		return
	}
	switch {
	case readable && acc == b: // a duplicate: what it asks for is here, or on its way
		if p := st.pending(call.Hash); p != nil {
			r.park(st, p, call)
			return
		}
		r.promise(call.Partition, call.Hash, top)
		if !r.opts.Fence.Staged(top.Stamp.Ticks()) {
			call.Reply.Status = message.Busy
		}
		st.mu.Unlock()
		r.whenCovered(call, top)
		return
	case b.Less(promised):
		r.nack(call, promised)
	case readable && b.Less(acc):
		r.nack(call, acc)
	case !r.opts.Fence.Staged(top.Stamp.Ticks()):
		call.Reply.Status = message.Busy
	default:
		r.take(st, call, top, b, acc, readable)
		return
	}
	st.mu.Unlock()
	call.Completion.Done(call)
}

// take stages the record of call at ballot b in the place of the one at acc, and raises the promise to
// top, which is never below what is accepted. st is locked, and let go of.
func (r *Replica) take(st *stripe, call *message.Call, top, b, acc record.Ballot, readable bool) {
	r.promise(call.Partition, call.Hash, top)
	if dead, expires := record.Dead(call.Request.Record, 0); dead || expires != 0 {
		r.parts[call.Partition].mortals.Add(1)
	}
	answered := r.stage(st, call, b, acc, readable)
	st.mu.Unlock()
	if answered != nil {
		answered.finish()
	}
}

// whenCovered answers call once the promise of top is durable.
func (r *Replica) whenCovered(call *message.Call, top record.Ballot) {
	if call.Reply.Status != message.OK || r.opts.Fence.Covers(top.Stamp.Ticks()) {
		call.Completion.Done(call)
		return
	}
	kept := call.Keep()
	r.opts.Fence.When(top.Stamp.Ticks(), func(err error) {
		if err != nil {
			r.refuse(kept, err)
		}
		kept.Completion.Done(kept)
	})
}

// accepted is the newest ballot of the key, staged writes included. known=false: only the disk can
// tell, and this goroutine is not patient. readable=false: the stored state is corrupt; an accept that
// is not below the promise may still replace it, since nothing accepted is ever above what was
// promised.
func (r *Replica) accepted(st *stripe, call *message.Call, patient bool) (b record.Ballot, readable, known bool) {
	if p := st.pending(call.Hash); p != nil {
		return p.newest, true, true
	}
	if b, _, known = r.opts.Storage.PeekBallot(call.Partition, call.Hash, call.Key); known || !patient {
		return b, true, known
	}
	enc, found, _, err := r.load(call.Partition, call.Hash, call.Key, nil, true)
	if err != nil {
		return record.Ballot{}, false, true
	}
	if found {
		b = record.PeekBallot(enc)
	}
	return b, true, true
}

// stage puts the record into the store, in the place of the one at acc; b zero: it purges that one. st is locked, so that writes of one key reach the store in
// the order of their ballots. It returns the commit if the store answered before Put returned; the
// caller finishes it once st is unlocked.
func (r *Replica) stage(st *stripe, call *message.Call, b, acc record.Ballot, readable bool) *commit {
	st.staged(call.Hash, b)
	c := r.commits.Get().(*commit)
	c.done, c.index, c.p, c.hash, c.start = call.Completion, call.Index, call.Partition, call.Hash, call.Request.Came
	if c.start == 0 {
		c.start = clock.Now()
	}
	c.change, c.lost = message.Term(call.Hash, b)-message.Term(call.Hash, acc), !readable
	l := &r.leaves(c.p)[message.Leaf(c.hash)]
	l.writes++
	l.touched = true
	c.inPut.Store(true)
	if b.IsZero() {
		r.opts.Storage.(Purger).Purge(call.Partition, call.Hash, call.Key, c)
	} else {
		r.opts.Storage.Put(call.Partition, call.Hash, call.Key, call.Request.Record, c)
	}
	if c.inPut.CompareAndSwap(true, false) {
		return nil
	}
	return c
}

// park has call wait for the key's staged writes, or answers it Busy when too many wait. st is locked, and let go of.
func (r *Replica) park(st *stripe, p *pending, call *message.Call) {
	parked := p.park(call)
	st.mu.Unlock()
	if !parked {
		call.Reply.Status = message.Busy
		call.Completion.Done(call)
	}
}

// configure adopts a newer configuration: on disk first, then in memory. One at a time for each
// partition, because the last one written is the one that a restart finds.
func (r *Replica) configure(call *message.Call) {
	p, conf := call.Partition, call.Request.Configuration
	if conf.Epoch == 0 || len(conf.Members) == 0 {
		call.Reply.Status = message.Invalid
		call.Completion.Done(call)
		return
	}
	r.confMu.Lock()
	_, busy := r.adopting[p]
	newer := conf.Epoch > r.opts.Configurations.Configuration(p).Epoch
	if newer && !busy {
		r.adopting[p] = struct{}{}
	}
	r.confMu.Unlock()
	if busy || !newer {
		if newer {
			call.Reply.Status = message.Busy
		}
		call.Completion.Done(call) // already there or ahead, or the sender may come again
		return
	}
	call = call.Keep()
	fresh := r.newcomer(conf)
	if fresh {
		r.gate(p)
	}
	r.opts.Journal.PutMeta(ConfigurationName(p), r.opts.EncodeConfiguration(conf), committed(func(err error) {
		if !fresh || err != nil {
			r.follow(call, p, conf, fresh, err)
			return
		}
		go func() { r.follow(call, p, conf, fresh, r.clean(p, conf)) }() // it reads the disk
	}))
}

// follow ends a configure: from here on this node goes by conf, which is on the disk, unless there was an error.
func (r *Replica) follow(call *message.Call, p ring.Partition, conf ring.Configuration, gated bool, err error) {
	r.confMu.Lock()
	if err != nil {
		r.refuse(call, err)
	} else {
		r.opts.Configurations.Adopt(p, conf)
		r.parts[p].serves.Store(0)
	}
	if gated {
		delete(r.cleans.running, p)
	}
	delete(r.adopting, p)
	r.confMu.Unlock()
	call.Completion.Done(call)
}

type committed func(error)

func (f committed) Committed(err error) { f(err) }

func micros(d time.Duration) uint32 {
	return uint32(min(max(d.Microseconds(), 0), int64(^uint32(0))))
}
