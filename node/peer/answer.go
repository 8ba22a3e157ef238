package peer

import (
	"sync/atomic"
	"time"

	"kai/node/clock"
	"kai/node/message"
)

const (
	// leastRoom is the Room a Handler finds at first; it grows to what is used, up to maxRoom.
	leastRoom = 1 << 10
	maxRoom   = 64 << 10
)

// serverCall is what is remembered of a request while the Handler has it; sessions recycle them.
type serverCall struct {
	x     *session
	id    uint64
	queue uint32 // microseconds before the Handler had it
	// inSend: the reader is inside Handler.Send with this call, and will flush afterwards.
	inSend atomic.Bool
	began  time.Duration    // when it was read, if it is sampled
	about  *message.Request // which it is, without its slices, if it is sampled; else nil
}

// take returns a call to fill, nil when too many are with the Handler.
func (x *session) take() *serverCall {
	if len(x.local) == 0 {
		x.out.mu.Lock()
		x.local, x.free = x.free, x.local
		full := x.inFlight() >= x.s.opts.MaxCalls
		x.out.mu.Unlock()
		if full {
			return nil
		}
	}
	n := len(x.local)
	if n == 0 {
		return &serverCall{x: x}
	}
	c := x.local[n-1]
	x.local = x.local[:n-1]
	return c
}

// Done implements message.Completion.
func (c *serverCall) Done(call *message.Call) {
	x := c.x
	call.Reply.Timing.Queue += min(c.queue, ^call.Reply.Timing.Queue)
	if c.about != nil {
		x.s.opts.Sampled(&message.Call{Request: *c.about, Reply: call.Reply}, clock.Now()-c.began)
		c.about = nil
	}
	o := &x.out
	o.mu.Lock()
	if !o.closed {
		at := len(o.buf)
		o.buf = message.AppendReply(o.buf, c.id, &call.Reply)
		if len(o.buf)-at > x.s.frame {
			// The peer would end the connection. What was done is done: it must not learn less.
			o.buf = message.AppendReply(o.buf[:at], c.id, &message.Reply{Status: message.TimedOut})
		}
		if o.frames++; len(o.buf) >= x.s.opts.MaxQueueBytes {
			x.over.Store(true)
		}
	}
	// A reply made inside Send waits for the reader's flush, one made under Hold for the Release;
	// another one has nobody to wait for.
	if !c.inSend.Load() && !o.busy && !x.s.hold(x) {
		o.nudge()
	}
	x.free = append(x.free, c)
	if x.answered++; x.draining {
		poke(x.settled)
	}
	o.mu.Unlock()
}

// refuse answers a request that never came to the Handler.
func (x *session) refuse(id uint64, s message.Status) {
	x.append(func(dst []byte) []byte { return message.AppendReply(dst, id, &message.Reply{Status: s}) })
}

func (x *session) append(frame func(dst []byte) []byte) {
	x.out.mu.Lock()
	defer x.out.mu.Unlock()
	if !x.out.closed {
		x.out.buf = frame(x.out.buf)
		x.out.frames++
	}
}
