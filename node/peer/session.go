package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/clock"
	"kai/node/message"
)

// clockEvery is how many requests of a batch share one look at the clock.
const clockEvery = 32

// session is one connection of a Server.
type session struct {
	s   *Server
	out outbox
	in  *inbox

	// Under out.mu:
	free     []*serverCall // given back by Done
	answered uint64
	settled  chan struct{} // poked at each answer while draining is set
	draining bool
	isHeld   bool          // in the server's list for Release
	handed   atomic.Uint64 // to the Handler; the reader writes it
	over     atomic.Bool   // more replies are queued than the peer seems to read

	// The reader's own:
	local   []*serverCall
	call    message.Call // for one request after the other
	waitTil int64        // the read deadline set last

	ending atomic.Bool
	enough chan struct{} // poked with ending: wait for the peer no longer
}

func newSession(s *Server, conn net.Conn, in *inbox) *session {
	x := &session{s: s, in: in, settled: make(chan struct{}, 1), enough: make(chan struct{}, 1)}
	x.out.init(conn, s.opts.WriteTimeout, &s.count, func(error) { _ = conn.Close() })
	return x
}

// run serves requests until the connection breaks or ctx ends; then it lets the Handler finish.
func (x *session) run(ctx context.Context) {
	var writer sync.WaitGroup
	writer.Go(x.out.run)
	stop := context.AfterFunc(ctx, func() {
		x.ending.Store(true)
		_ = x.out.conn.SetReadDeadline(time.Unix(1, 0))
		poke(x.enough)
	})
	err := x.read()
	stop()
	if ctx.Err() != nil {
		x.drain()
	} else if !errors.Is(err, io.EOF) {
		x.s.count.failures.Add(1)
		x.s.opts.Logger.Debug("peer connection ended", "error", err)
	}
	x.out.close()
	writer.Wait()
}

// read hands over requests, a batch at a time: what one read brought is answered with one write.
func (x *session) read() error {
	for {
		if x.over.Load() {
			x.room()
		}
		if err := x.await(); err != nil {
			return err
		}
		start := clock.Now()
		now := start
		var frames uint64
		for {
			frame, err := x.in.next()
			if err != nil {
				return err
			}
			if frame == nil {
				break
			}
			if frames++; frames%clockEvery == 0 {
				now = clock.Now()
			}
			if err := x.handle(frame, start, now); err != nil {
				return err
			}
		}
		x.s.count.framesIn.Add(frames)
		x.s.opts.BatchEnd()
		x.out.flush()
	}
}

// await reads once. The deadline that notices a dead client is renewed once in a while only.
func (x *session) await() error {
	if now, idle := int64(clock.Now()), int64(x.s.opts.IdleTimeout); x.waitTil-now < idle/2 {
		x.waitTil = now + idle
		if err := x.out.conn.SetReadDeadline(time.Now().Add(x.s.opts.IdleTimeout)); err != nil {
			return err
		}
	}
	if x.ending.Load() { // after the deadline above, which may have overwritten run's
		return os.ErrDeadlineExceeded
	}
	return x.in.fill()
}

func (x *session) handle(frame []byte, start, now time.Duration) error {
	h, err := message.ParseHead(frame)
	if err != nil {
		return err
	}
	switch {
	case h.Type == typePing:
		x.append(func(dst []byte) []byte { return message.AppendControl(dst, typePong, h.ID, nil) })
	case h.Type == typeRefuse:
		body := message.Body(frame)
		return fmt.Errorf("peer: refused by the peer: %q", body[min(1, len(body)):])
	case h.Type == message.TypeReply:
		return fmt.Errorf("%w: %d", errUnknownFrame, h.Type)
	case h.Type < message.TypeControl:
		x.request(h, frame, start, now)
	}
	return nil
}

// request hands over what was read at start, and whose turn it is now.
func (x *session) request(h message.Head, frame []byte, start, now time.Duration) {
	waited := now - start
	c := x.take()
	if c == nil {
		x.s.count.busy.Add(1)
		x.refuse(h.ID, message.Busy)
		return
	}
	call := &x.call
	if err := message.DecodeRequest(h, message.Body(frame), &call.Request); err != nil {
		x.s.opts.Logger.Error("request not understood", "error", err)
		x.local = append(x.local, c)
		x.refuse(h.ID, message.Invalid)
		return
	}
	if call.Timeout > 0 && waited > call.Timeout { // nobody waits any more, and nothing was done
		x.s.count.timeouts.Add(1)
		x.local = append(x.local, c)
		x.refuse(h.ID, message.Busy)
		return
	}
	c.id, c.queue = h.ID, uint32(min(waited/time.Microsecond, 1<<32-1))
	if x.s.opts.Sampled != nil && message.Sampled(&call.Trace) {
		c.began, c.about = start, &message.Request{Kind: call.Kind, Partition: call.Partition, Epoch: call.Epoch, Trace: call.Trace}
	}
	call.Request.Came = now
	call.Reply = message.Reply{}
	call.Completion = c
	if call.Room == nil {
		call.Room = make([]byte, 0, leastRoom)
	}
	x.handed.Add(1)
	c.inSend.Store(true)
	x.s.opts.Handler.Send(call)
	c.inSend.Store(false) // c may be back on the free list: only this goroutine takes it from there
	if cap(call.Room) > maxRoom {
		call.Room = nil
	}
	if x.over.Load() {
		x.room()
	}
}

// room waits until the peer has read what it asked for.
func (x *session) room() {
	x.over.Store(false)
	x.out.waitRoom(x.s.opts.MaxQueueBytes, x.enough)
}

// inFlight counts the calls with the Handler. out.mu is held.
func (x *session) inFlight() int { return int(x.handed.Load() - x.answered) }

// drain waits until the Handler has answered all and the peer has read it, but not for long.
func (x *session) drain() {
	late := make(chan struct{})
	timer := time.AfterFunc(x.s.opts.DrainTimeout, func() { close(late) })
	defer timer.Stop()
	x.out.mu.Lock()
	x.draining = true
	for x.inFlight() > 0 {
		x.out.mu.Unlock()
		select {
		case <-x.settled:
		case <-late:
			return
		}
		x.out.mu.Lock()
	}
	x.out.mu.Unlock()
	x.out.waitRoom(0, late)
	// A close with unread requests would reset the connection and destroy replies under way: say
	// that nothing follows, and let the peer close.
	half, ok := x.out.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = x.out.conn.SetReadDeadline(time.Now().Add(x.s.opts.DrainTimeout))
	_, _ = io.Copy(io.Discard, x.out.conn)
}
