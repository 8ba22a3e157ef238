package peer

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"kai/node/rawio"
)

const (
	// combineRounds is how often one flush writes what others gathered meanwhile, before it leaves
	// the rest to the writer: nobody's own goroutine works for the others for ever.
	combineRounds = 4
	// keepBuffer is the largest buffer that is kept for the next time.
	keepBuffer = 1 << 20
)

// outbox gathers frames for one connection and writes many with one call (flat combining: who finds
// the connection idle writes for all, by itself, without a hand-over to another goroutine).
//
// A write on a caller's goroutine never blocks. What the kernel does not take at once, the writer
// goroutine (run) writes, and meanwhile frames gather.
type outbox struct {
	conn    net.Conn
	try     *rawio.Writer // nil: only the writer can write
	timeout time.Duration
	fail    func(error) // hears of the first failed write; must not block
	count   *counters
	crowded func() bool // whether to let others run before a write; may be nil; mu is held

	wake chan struct{} // to the writer; holds one
	room chan struct{} // to who waits for room; holds one
	done chan struct{} // closed by close

	mu       sync.Mutex
	buf      []byte // gathered frames
	spare    []byte
	rest     []byte // of a write that would have blocked, the writer's to finish
	restOf   []byte // the buffer rest is in
	frames   uint64 // in buf
	base     uint64 // bytes handed to writes so far: all before may have been sent
	busy     bool   // somebody writes; whoever it is looks at buf again before he leaves
	handed   bool   // and the writer is to take over from him
	nudged   bool   // the writer was woken and has not come yet
	wantRoom bool
	closed   bool
	err      error // of the first failed write
}

func (o *outbox) init(conn net.Conn, timeout time.Duration, count *counters, fail func(error)) {
	o.conn, o.timeout, o.count, o.fail = conn, timeout, count, fail
	o.try = rawio.NewWriter(conn)
	o.wake = make(chan struct{}, 1)
	o.room = make(chan struct{}, 1)
	o.done = make(chan struct{})
}

// flush pushes out what was gathered, on the caller's goroutine if the connection is idle. It never
// blocks on the peer.
func (o *outbox) flush() {
	o.mu.Lock()
	if o.busy || o.closed || len(o.buf) == 0 {
		o.mu.Unlock()
		return
	}
	if o.try == nil {
		o.nudge()
		o.mu.Unlock()
		return
	}
	o.busy = true
	if o.crowded != nil && o.crowded() {
		// Others are about to send: those that can run do so now, and their frames go out with
		// these. It doubles the throughput of 32 callers (DESIGN.md, "Gathering").
		o.mu.Unlock()
		runtime.Gosched()
		o.mu.Lock()
	}
	for range combineRounds {
		if o.closed {
			o.leave()
			return
		}
		out := o.swap()
		o.mu.Unlock()
		n, err := o.try.TryWrite(out)
		o.wrote(n)
		o.mu.Lock()
		if err != nil {
			o.broke(err)
			return
		}
		if n < len(out) {
			o.rest, o.restOf = out[n:], out
			break
		}
		if o.recycle(out); len(o.buf) == 0 {
			o.leave()
			return
		}
	}
	o.handed = true
	o.nudge()
	o.mu.Unlock()
}

// swap takes the gathered frames for a write. mu is held, and busy is the caller's.
func (o *outbox) swap() []byte {
	out := o.buf
	o.buf, o.spare = o.spare[:0], nil
	o.base += uint64(len(out))
	o.count.framesOut.Add(o.frames)
	o.frames = 0
	o.madeRoom()
	return out
}

func (o *outbox) recycle(out []byte) {
	if cap(out) <= keepBuffer {
		o.spare = out[:0]
	}
}

// leave ends the caller's turn to write, nothing being left to write. It releases mu.
func (o *outbox) leave() {
	o.busy = false
	o.madeRoom()
	o.mu.Unlock()
}

// broke ends the outbox after a failed write. It releases mu.
func (o *outbox) broke(err error) {
	o.busy, o.closed = false, true
	if o.err == nil {
		o.err = fmt.Errorf("peer: write: %w", err)
	}
	err = o.err
	o.madeRoom()
	o.mu.Unlock()
	o.fail(err)
}

// nudge wakes the writer, once until it comes. mu is held.
func (o *outbox) nudge() {
	if !o.nudged {
		o.nudged = true
		poke(o.wake)
	}
}

// waitRoom blocks until fewer than limit bytes are gathered (limit 0: until all is written), the
// outbox is closed, or giveUp fires. One goroutine at a time.
func (o *outbox) waitRoom(limit int, giveUp <-chan struct{}) {
	for {
		o.mu.Lock()
		if o.closed || len(o.buf) < limit || len(o.buf) == 0 && !o.busy {
			o.mu.Unlock()
			return
		}
		o.wantRoom = true
		o.mu.Unlock()
		o.flush()
		select {
		case <-o.room:
		case <-o.done:
		case <-giveUp:
			return
		}
	}
}

// madeRoom wakes waitRoom to look again. mu is held.
func (o *outbox) madeRoom() {
	if o.wantRoom {
		o.wantRoom = false
		poke(o.room)
	}
}

// close makes the outbox take nothing more and ends run. It closes the connection first, so that
// a write under way ends too. It is called once.
func (o *outbox) close() {
	_ = o.conn.Close()
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	close(o.done)
}

// poke sends on a channel that holds one, if it is empty.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
