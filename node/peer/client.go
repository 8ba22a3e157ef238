package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"kai/node/message"
	"kai/node/rawio"
	"kai/node/ring"
)

// Dialer makes connections; *net.Dialer is one.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// ClientOptions of one link. Zero values of all but the first three mean the default.
type ClientOptions struct {
	// Addr is the peer's host:port, Node the id it must have.
	Addr string
	Node ring.NodeID
	// Identity says who this node is; it may change, once, at founding.
	Identity func() Identity
	// Admit may refuse the node that answers, as ServerOptions.Admit does one that calls; nil admits all.
	Admit func(Identity) error

	Dialer Dialer
	Logger *slog.Logger
	// BatchBegin is called on the link's goroutine before it answers a batch of calls, BatchEnd after
	// it: the place to flush what their completions sent. They must not block.
	BatchBegin, BatchEnd func()
	// Up is called on the link's goroutine when Healthy has turned true. It must not block.
	Up func()

	// MaxValue is the largest value in bytes (1 MiB). Larger frames end the connection.
	MaxValue int
	// MaxCalls may wait for replies (65,536, which is also the limit), and MaxQueueBytes for a
	// connection that takes no more (8 MiB). Beyond either, calls are answered Busy at once: small
	// bounds turn load away early, large ones keep memory and answer late.
	MaxCalls      int
	MaxQueueBytes int
	// DefaultTimeout is for calls with Timeout 0 (2 s).
	DefaultTimeout time.Duration
	// Tick is how exactly deadlines are kept (10 ms). Each tick looks at all pending calls.
	Tick time.Duration
	// Heartbeat is how often a quiet link is asked for a sign of life (250 ms); after Suspect
	// (750 ms) without one Healthy turns false, after Dead (5 s) the link is made anew.
	Heartbeat, Suspect, Dead time.Duration
	// DialTimeout, HandshakeTimeout (2 s each); WriteTimeout for 256 KiB (5 s).
	DialTimeout, HandshakeTimeout, WriteTimeout time.Duration
	// MinBackoff and MaxBackoff between attempts to connect (20 ms, 2 s), doubled each time, and
	// shortened by up to half at random so that the nodes of a cluster do not come in step.
	MinBackoff, MaxBackoff time.Duration

	speak [2]uint8 // versions, for tests
}

func (o ClientOptions) withDefaults() ClientOptions {
	if o.Dialer == nil {
		o.Dialer = &net.Dialer{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BatchBegin == nil {
		o.BatchBegin = func() {}
	}
	if o.BatchEnd == nil {
		o.BatchEnd = func() {}
	}
	if o.Up == nil {
		o.Up = func() {}
	}
	if o.speak == [2]uint8{} {
		o.speak = versions
	}
	def(&o.MaxValue, 1<<20)
	def(&o.MaxCalls, maxSlots)
	def(&o.MaxQueueBytes, 8<<20)
	def(&o.DefaultTimeout, 2*time.Second)
	def(&o.Tick, 10*time.Millisecond)
	def(&o.Heartbeat, 250*time.Millisecond)
	def(&o.Suspect, 750*time.Millisecond)
	def(&o.Dead, 5*time.Second)
	def(&o.DialTimeout, 2*time.Second)
	def(&o.HandshakeTimeout, 2*time.Second)
	def(&o.WriteTimeout, 5*time.Second)
	def(&o.MinBackoff, 20*time.Millisecond)
	def(&o.MaxBackoff, 2*time.Second)
	return o
}

func def[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Client is the link to one node. It meets quorum.Replica. All methods are safe for concurrent use.
type Client struct {
	opts    ClientOptions
	frame   int                  // largest, in bytes
	link    atomic.Pointer[link] // nil while not connected
	healthy atomic.Bool
	rtt     atomic.Int64
	count   counters
	quiet   throttle
}

// NewClient returns a client that answers Unreachable until Run has connected it.
func NewClient(o ClientOptions) *Client {
	o = o.withDefaults()
	return &Client{opts: o, frame: message.MaxFrame(o.MaxValue)}
}

// Send encodes call's request for the peer; Flush (or the next tick) pushes it out. It never
// blocks on the peer, and needs call only until it returns. A Timeout of 0 becomes DefaultTimeout.
//
// call.Completion.Done is called exactly once: with the peer's reply, on the link's goroutine; with
// TimedOut when no reply came in time or the connection broke and the request may have been sent;
// with Unreachable when it was certainly not sent; with Busy, before Send returns, when a queue is
// full or Timeout is negative; with Invalid, before Send returns, when it cannot be encoded; with Unsupported, before
// Send returns, when the peer's build is too old for it.
func (c *Client) Send(call *message.Call) {
	if call.Timeout == 0 {
		call.Timeout = c.opts.DefaultTimeout
	}
	status := message.Unreachable
	if l := c.link.Load(); l != nil {
		status = l.send(call)
	}
	if status != 0 {
		answer(call, status)
	}
}

// Flush pushes out what Send gathered. It does not block on the peer; of several callers at once,
// one writes for all, after it let those that are ready to run add theirs.
func (c *Client) Flush() {
	if l := c.link.Load(); l != nil {
		l.out.flush()
	}
}

// Healthy reports that the peer was heard of lately: a hint for picking coordinators and hedging.
func (c *Client) Healthy() bool { return c.healthy.Load() }

// Hedged counts that somebody has asked another node because this one was slow.
func (c *Client) Hedged() { c.count.hedged.Add(1) }

// RTT is a moving average of round trips of reads and heartbeats; 0 before the first.
func (c *Client) RTT() time.Duration { return time.Duration(c.rtt.Load()) }

// Node is the id of the peer.
func (c *Client) Node() ring.NodeID { return c.opts.Node }

// Addr is where the peer is looked for.
func (c *Client) Addr() string { return c.opts.Addr }

// Stats returns the counters.
func (c *Client) Stats() Stats {
	s := c.count.snapshot()
	s.RTT = c.RTT()
	if l := c.link.Load(); l != nil {
		s.Connections = 1
		l.out.mu.Lock()
		s.Pending, s.QueuedBytes = l.slots.pending(), len(l.out.buf)+len(l.out.rest)
		l.out.mu.Unlock()
	}
	return s
}

// Run connects, and connects again, until ctx ends; then it answers what is pending and returns
// nil. Call it once.
func (c *Client) Run(ctx context.Context) error {
	backoff := c.opts.MinBackoff
	for ctx.Err() == nil {
		start := time.Now()
		err := c.connect(ctx)
		if ctx.Err() != nil {
			break
		}
		c.report(err)
		if time.Since(start) > c.opts.MaxBackoff {
			backoff = c.opts.MinBackoff // it was up for a while
		}
		var no *RefusedError
		if errors.As(err, &no) && no.Code == NotFounded {
			backoff = min(backoff, 10*c.opts.MinBackoff) // founding is a matter of moments
		}
		wait := time.NewTimer(backoff/2 + rand.N(backoff/2+1))
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
		backoff = min(2*backoff, c.opts.MaxBackoff)
	}
	return nil
}

// connect makes one link and serves it until it breaks.
func (c *Client) connect(ctx context.Context) error {
	mine := c.opts.Identity()
	if mine.ClusterID == "" {
		return judge(&mine, &mine)
	}
	dialing, cancel := context.WithTimeout(ctx, c.opts.DialTimeout)
	conn, err := c.opts.Dialer.DialContext(dialing, "tcp", c.opts.Addr)
	cancel()
	if err != nil {
		return fmt.Errorf("peer: dial: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	in := &inbox{src: conn, maxFrame: maxHello, count: &c.count}
	version, err := greet(conn, in, mine, c.opts.Node, c.opts.Admit, c.opts.speak, c.opts.HandshakeTimeout)
	if err != nil {
		_ = conn.Close()
		var no *RefusedError
		if errors.As(err, &no) {
			c.count.refusals.Add(1)
		}
		return fmt.Errorf("peer: handshake: %w", err)
	}
	in.src, in.maxFrame = rawio.NewReader(conn), c.frame
	c.count.connects.Add(1)
	c.opts.Logger.Info("peer link up", "node", c.opts.Node, "addr", c.opts.Addr, "protocol", version)
	err = newLink(c, conn, in, version).run()
	c.count.failures.Add(1)
	return err
}

// report logs why there is no link, once a minute for each kind of reason.
func (c *Client) report(err error) {
	level, kind := slog.LevelInfo, "down"
	var no *RefusedError
	if errors.As(err, &no) {
		kind = no.Code.String()
		switch no.Code {
		case WrongCluster, SameNode, NoVersion:
			level = slog.LevelError // only a person can put that right
		}
	}
	if c.quiet.allow(kind, time.Now()) {
		c.opts.Logger.Log(context.Background(), level, "peer link down", "node", c.opts.Node, "addr", c.opts.Addr, "error", err)
	}
}

// observe folds one round trip into the average.
func (c *Client) observe(d time.Duration) {
	old := c.rtt.Load()
	if old == 0 {
		old = int64(d)
	}
	c.rtt.Store(max(1, old+(int64(d)-old)/8)) // two at once may lose one: it is a hint
}

// answer completes a call that got no reply.
func answer(call *message.Call, s message.Status) {
	call.Reply = message.Reply{Status: s}
	call.Completion.Done(call)
}
