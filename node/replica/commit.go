package replica

import (
	"sync/atomic"
	"time"

	"kai/node/clock"
	"kai/node/message"
	"kai/node/ring"
)

// commit is one staged write on its way to the disk.
type commit struct {
	r    *Replica
	call *message.Call
	p    ring.Partition
	hash uint64
	// change is what the write does to its leaf's sum; lost: nobody knows.
	change uint64
	lost   bool
	start  time.Duration
	inPut  atomic.Bool // neither Put has returned nor the store answered
	err    error
}

// Committed implements the store's callback.
func (c *commit) Committed(err error) {
	c.err = err
	if c.inPut.CompareAndSwap(true, false) {
		return // stage still holds the stripe; it sees the flag down, and its caller finishes
	}
	c.finish()
}

// finish answers the write and whoever waited for it.
func (c *commit) finish() {
	r, call, err := c.r, c.call, c.err
	now := clock.Now()
	call.Reply.Timing.Store, call.Reply.Came = micros(now-c.start), now
	st := r.stripe(c.hash)
	st.mu.Lock()
	r.sums.ended(c.p, c.hash, c.change, c.lost || err != nil)
	var waiting []*message.Call
	p := st.pending[c.hash]
	if p.writes--; p.writes == 0 {
		waiting = p.waiting
		delete(st.pending, c.hash)
		*p = pending{}
		st.spare = p
	}
	st.mu.Unlock()
	c.call, c.err = nil, nil
	r.commits.Put(c)
	if err != nil {
		r.refuse(call, err)
	}
	call.Completion.Done(call)
	for _, w := range waiting {
		r.Send(w)
	}
}
