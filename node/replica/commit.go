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
	r     *Replica
	done  message.Completion
	index int
	p     ring.Partition
	hash  uint64
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
	r, err := c.r, c.err
	now := clock.Now()
	call := r.answers.Get().(*message.Call)
	call.Completion, call.Index, call.Partition = c.done, c.index, c.p
	call.Reply = message.Reply{Status: message.OK, Timing: message.Timing{Store: micros(now - c.start)}, Came: now}
	st := r.stripe(c.hash)
	st.mu.Lock()
	r.leaves(c.p)[message.Leaf(c.hash)].ended(c.change, c.lost || err != nil)
	waiting := st.ended(c.hash)
	st.mu.Unlock()
	c.done, c.err = nil, nil
	r.commits.Put(c)
	if err != nil {
		r.refuse(call, err)
	}
	call.Completion.Done(call)
	call.Completion = nil
	r.answers.Put(call)
	for _, w := range waiting {
		r.Send(w)
	}
}
