package replica

import (
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// raiseFloor has nothing below b promised or accepted for any key of p from now on.
func (r *Replica) raiseFloor(p ring.Partition, b record.Ballot) {
	for {
		old := r.parts[p].floor.Load()
		if old != nil && !old.Less(b) || r.parts[p].floor.CompareAndSwap(old, &b) {
			return
		}
	}
}

// floor is the promise in force for all keys of p: that of a PrepareAll, the purge fence, or, since what was
// promised before is not remembered otherwise, the fence found at the start.
func (r *Replica) floor(p ring.Partition, epoch uint32) (floor record.Ballot) {
	if boot := r.opts.Fence.Boot(); boot != 0 {
		floor = record.Ballot{Epoch: epoch, Stamp: record.NewStamp(boot, ^uint16(0))}
	}
	if f := r.parts[p].floor.Load(); f != nil && floor.Less(*f) {
		floor = *f
	}
	return floor
}

// prepareAll is a Prepare for all keys of a partition. It tells the sums of what is accepted below the
// ballot: all that ever will be, since whoever was admitted before is waited for.
func (r *Replica) prepareAll(call *message.Call, patient bool) {
	b := call.Request.Ballot
	switch floor := r.floor(call.Partition, call.Epoch); {
	case r.tooFarAhead(b):
		r.counters.ClockRejects.Add(1)
		call.Reply.Status = message.ClockReject
	case b.Less(floor) || b.Epoch != call.Epoch:
		r.nack(call, floor)
	case !patient:
		r.aside(call)
		return
	default:
		r.raiseFloor(call.Partition, b)
		err := r.flush()
		if err == nil {
			err = r.scanOnce(call.Partition)
		}
		if err != nil {
			r.refuse(call, err)
			break
		}
		r.whenAll(call, b)
		return
	}
	call.Completion.Done(call)
}

// whenAll answers a PrepareAll once the promise is durable.
func (r *Replica) whenAll(call *message.Call, b record.Ballot) {
	items := message.BeginPromised(call.Room[:0])
	t := r.leaves(call.Partition)
	for i := range t {
		st := &r.stripes[i]
		st.mu.Lock()
		sum, known := t[i].sum, t[i].known && t[i].writes == 0
		st.mu.Unlock()
		items = message.SetPromised(items, i, sum, known)
	}
	call.Reply.Items, call.Room = items, items
	r.whenCovered(call, b)
}

// scanOnce finds out the sums that an earlier life left, if that was not done yet.
func (r *Replica) scanOnce(p ring.Partition) error {
	if _, ok := r.opts.Storage.(Scanner); !ok {
		return nil
	}
	t, known := r.leaves(p), 0
	for i := range t {
		st := &r.stripes[i]
		st.mu.Lock()
		if t[i].known {
			known++
		}
		st.mu.Unlock()
	}
	if known >= len(t)/2 {
		return nil // the others were written to during a scan
	}
	_, err := r.scanSums(p)
	return err
}

// flush returns when whatever was admitted before the call, by promises and epochs of then, is durable, or given up.
func (r *Replica) flush() error {
	r.sweep()
	durable := make(chan error, 1)
	r.opts.Journal.PutMeta("settled", nil, committed(func(err error) { durable <- err }))
	return <-durable
}
