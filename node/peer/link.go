package peer

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/clock"
	"kai/node/message"
)

// link is one connection of a Client, from handshake to break. Calls never move to another link:
// the reply to what was sent here can only come from here.
type link struct {
	c       *Client
	version uint8 // of the protocol
	out     outbox
	in      *inbox
	slots   slots // under out.mu, but for claim

	asleep bool          // under out.mu: upkeep keeps no deadlines now
	wake   chan struct{} // to upkeep; holds one

	now    atomic.Int64 // coarse clock in ns of clock.Now, not older than a tick while calls wait
	heard  atomic.Int64 // when something was read last
	sample atomic.Uint64
	// sampleAt is when the call sample was sent, sampled the tick in which; under out.mu until
	// sample is stored.
	sampleAt, sampled int64
	pingID            atomic.Uint64
	pingAt            atomic.Int64

	claimed []uint64     // slots the reader answered and did not give back yet
	answer  message.Call // the reader's, for one reply after the other

	once  sync.Once
	cause error
}

func newLink(c *Client, conn net.Conn, in *inbox, version uint8) *link {
	l := &link{c: c, version: version, in: in, wake: make(chan struct{}, 1), asleep: true}
	l.out.init(conn, c.opts.WriteTimeout, &c.count, l.fail)
	l.out.crowded = l.crowded
	now := int64(clock.Now())
	l.now.Store(now)
	l.heard.Store(now)
	return l
}

// crowded reports that others than who sent what is gathered now wait for replies: their callers
// are likely to send next. out.mu is held.
func (l *link) crowded() bool { return l.slots.pending() > int(l.out.frames) }

// fail ends the link: the reader wakes up and tears it down. The first cause counts.
func (l *link) fail(err error) {
	l.once.Do(func() {
		l.cause = err
		_ = l.out.conn.Close()
	})
}

// up turns the peer healthy, and says so.
func (l *link) up() {
	l.c.healthy.Store(true)
	l.c.opts.Up()
}

// run serves the link until it breaks, and then answers all that is pending.
func (l *link) run() error {
	var children sync.WaitGroup
	children.Go(l.out.run)
	children.Go(l.upkeep)
	l.c.link.Store(l)
	l.up()
	l.fail(l.read())
	l.c.healthy.Store(false)
	l.c.link.Store(nil)
	l.out.close()
	children.Wait()
	l.bury()
	return l.cause
}

// send appends the call's frame and remembers the call, or returns why not.
func (l *link) send(call *message.Call) message.Status {
	if call.Request.Check() != nil {
		return message.Invalid
	}
	if l.version < message.Newest && call.Since() > l.version {
		return message.Unsupported
	}
	o := &l.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return message.Unreachable
	}
	if call.Timeout < 0 || len(o.buf) >= l.c.opts.MaxQueueBytes {
		l.c.count.busy.Add(1)
		return message.Busy
	}
	s, id := l.slots.take(l.c.opts.MaxCalls)
	if s == nil {
		l.c.count.busy.Add(1)
		return message.Busy
	}
	at := len(o.buf)
	o.buf = message.AppendRequest(o.buf, id, &call.Request)
	if len(o.buf)-at > l.c.frame {
		o.buf = o.buf[:at]
		l.slots.untake(id)
		return message.Invalid
	}
	o.frames++
	l.stamp(call, id)
	s.remember(call, o.base+uint64(at), l.now.Load()+int64(call.Timeout))
	s.id.Store(id) // from here on it may be answered
	return 0
}

// stamp keeps the coarse clock going, and now and then takes the time of a read. out.mu is held.
func (l *link) stamp(call *message.Call, id uint64) {
	if l.asleep {
		l.asleep = false
		l.now.Store(int64(clock.Now()))
		poke(l.wake)
	}
	if now := l.now.Load(); call.Kind == message.Read && now != l.sampled && l.sample.Load() == 0 {
		l.sampled, l.sampleAt = now, int64(clock.Now())
		l.sample.Store(id)
	}
}

// read answers calls as replies come in, until the connection ends.
func (l *link) read() error {
	for {
		if err := l.in.fill(); err != nil {
			return fmt.Errorf("peer: read: %w", err)
		}
		now := int64(clock.Now())
		l.heard.Store(now)
		if !l.c.healthy.Load() {
			l.up()
		}
		l.c.opts.BatchBegin()
		err := l.batch(now)
		l.giveBack()
		l.c.opts.BatchEnd()
		if err != nil {
			return fmt.Errorf("peer: read: %w", err)
		}
	}
}

// batch handles the frames that are there.
func (l *link) batch(now int64) error {
	var frames uint64
	defer func() { l.c.count.framesIn.Add(frames) }()
	for {
		frame, err := l.in.next()
		if err != nil || frame == nil {
			return err
		}
		frames++
		if err := l.handle(frame, now); err != nil {
			return err
		}
	}
}

var errUnknownFrame = errors.New("frame of a type unknown here")

func (l *link) handle(frame []byte, now int64) error {
	h, err := message.ParseHead(frame)
	if err != nil {
		return err
	}
	switch {
	case h.Type == message.TypeReply:
		l.reply(h, frame, now)
	case h.Type == typePong:
		if at := l.pingAt.Load(); h.ID == l.pingID.Load() {
			l.c.observe(time.Duration(now - at))
		}
	case h.Type < message.TypeControl:
		return fmt.Errorf("%w: %d", errUnknownFrame, h.Type)
	}
	return nil // a control frame of a later build says nothing to this one
}

func (l *link) reply(h message.Head, frame []byte, now int64) {
	s := l.slots.claim(h.ID)
	if s == nil {
		l.c.count.late.Add(1)
		return
	}
	if l.sample.Load() == h.ID {
		at := l.sampleAt
		l.sample.Store(0)
		l.c.observe(time.Duration(now - at))
	}
	call := &l.answer
	if err := message.DecodeReply(h, message.Body(frame), s.asked(), &call.Reply); err != nil {
		// The peer did something and tells it in words this build does not know.
		l.c.opts.Logger.Error("reply not understood", "node", l.c.opts.Node, "error", err)
		call.Reply = message.Reply{Status: message.TimedOut}
	}
	call.Reply.Came = time.Duration(now)
	s.claimed(call)
	l.claimed = append(l.claimed, h.ID)
	call.Completion.Done(call)
}

// giveBack returns the slots of a whole batch under one lock.
func (l *link) giveBack() {
	if len(l.claimed) == 0 {
		return
	}
	l.out.mu.Lock()
	for _, id := range l.claimed {
		l.slots.untake(id)
	}
	l.out.mu.Unlock()
	l.claimed = l.claimed[:0]
}

// bury answers all that is pending when the link is closed: nothing is added any more.
func (l *link) bury() {
	l.out.mu.Lock()
	sent, used := l.out.base, l.slots.used
	l.out.mu.Unlock()
	l.c.opts.BatchBegin()
	for i := range used {
		id := l.slots.at(i).id.Load()
		s := l.slots.claim(id)
		if s == nil {
			continue
		}
		var call message.Call
		if s.claimed(&call); s.at < sent {
			l.c.count.timeouts.Add(1)
			answer(&call, message.TimedOut)
		} else {
			answer(&call, message.Unreachable)
		}
	}
	l.c.opts.BatchEnd()
}
