package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/message"
	"kai/node/rawio"
)

// Handler answers requests. Send must not block for long: it is called on the goroutine that reads
// the connection, one request after the other. The request's slices are valid until Send returns.
// call.Completion.Done must be called once, during Send with call, or later, on any goroutine, with
// call.Keep() or another one, with Reply filled; its slices are copied before Done returns. Room is
// there to be filled by append.
type Handler interface {
	Send(call *message.Call)
}

// ServerOptions of a Server. Handler and Identity are needed; other zero values mean the default.
type ServerOptions struct {
	Handler Handler
	// Identity says who this node is; it may change, once, at founding. Until it has a cluster id,
	// connections are refused as not founded.
	Identity func() Identity
	// Admit may refuse a node of the right cluster, for instance one that came back with an older
	// boot count. Nil admits all.
	Admit  func(Identity) error
	Logger *slog.Logger
	// BatchEnd is called on a connection's goroutine after it handed a batch of requests to
	// Handler: the place to flush what they sent to other nodes. It must not block.
	BatchEnd func()

	// Sampled, if not nil, hears of requests whose trace context says that all nodes are to keep their part: as they are answered, with the
	// reply and how long it took since the request was read; of the request there are Kind, Partition, Epoch and Trace. It must not block, nor keep call.
	Sampled func(call *message.Call, took time.Duration)

	// MaxValue is the largest value in bytes (1 MiB). Larger frames end the connection.
	MaxValue int
	// MaxConnections at once (1,024); more are refused.
	MaxConnections int
	// MaxCalls of one connection may be with the Handler (16,384); beyond, requests are answered
	// Busy. Beyond MaxQueueBytes (8 MiB) of replies that the peer does not read, no more of its
	// requests are read.
	MaxCalls      int
	MaxQueueBytes int
	// HandshakeTimeout (2 s). IdleTimeout (15 s): a client says something four times a second.
	// WriteTimeout for 256 KiB (5 s). DrainTimeout bounds how long Serve waits, at its end, for the
	// Handler to answer (2 s).
	HandshakeTimeout, IdleTimeout, WriteTimeout, DrainTimeout time.Duration

	speak [2]uint8 // versions, for tests
}

func (o ServerOptions) withDefaults() ServerOptions {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BatchEnd == nil {
		o.BatchEnd = func() {}
	}
	if o.speak == [2]uint8{} {
		o.speak = versions
	}
	def(&o.MaxValue, 1<<20)
	def(&o.MaxConnections, 1024)
	def(&o.MaxCalls, 16384)
	def(&o.MaxQueueBytes, 8<<20)
	def(&o.HandshakeTimeout, 2*time.Second)
	def(&o.IdleTimeout, 15*time.Second)
	def(&o.WriteTimeout, 5*time.Second)
	def(&o.DrainTimeout, 2*time.Second)
	return o
}

// Server answers the links of other nodes.
type Server struct {
	opts  ServerOptions
	frame int // largest, in bytes
	count counters
	quiet throttle

	mu       sync.Mutex
	open     int                        // connections, in handshake or later
	sessions atomic.Pointer[[]*session] // copied on write under mu

	holdMu  sync.Mutex // taken under a session's out.mu
	holders int
	held    []*session // with replies made under Hold
	spare   []*session
}

// NewServer returns a server for Serve.
func NewServer(o ServerOptions) *Server {
	o = o.withDefaults()
	s := &Server{opts: o, frame: message.MaxFrame(o.MaxValue)}
	s.sessions.Store(new([]*session))
	return s
}

// Serve accepts connections until ctx ends; then it closes ln, reads no more requests, waits up to
// DrainTimeout until those with the Handler are answered, and returns nil. An error means that ln
// is broken.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	defer func() { _ = ln.Close() }()
	var sessions sync.WaitGroup
	defer sessions.Wait()
	sctx, cancel := context.WithCancel(ctx) // ends the sessions when the listener broke, too
	defer cancel()
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			sessions.Go(func() { s.serve(sctx, conn) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("peer: accept: %w", err)
		default: // out of descriptors, or the connection is gone already
			if s.quiet.allow("accept", time.Now()) {
				s.opts.Logger.Error("cannot accept peers", "error", err)
			}
			pause := time.NewTimer(50 * time.Millisecond)
			select {
			case <-ctx.Done():
			case <-pause.C:
			}
			pause.Stop()
		}
	}
}

// Hold says that the caller is about to complete calls, outside Handler.Send, and will Release when
// it has. Until then no connection's own writer is woken for a reply: that would cost a hand-over to
// another goroutine for each. Optional; never to be held while blocked.
func (s *Server) Hold() {
	s.holdMu.Lock()
	s.holders++
	s.holdMu.Unlock()
}

// Release ends a Hold and pushes out what was answered meanwhile, on the caller's goroutine.
func (s *Server) Release() {
	s.holdMu.Lock()
	s.holders--
	held := s.held
	s.held, s.spare = s.spare, nil
	s.holdMu.Unlock()
	for i, x := range held {
		held[i] = nil
		x.out.mu.Lock()
		x.isHeld = false
		x.out.mu.Unlock()
		x.out.flush()
	}
	s.holdMu.Lock()
	s.spare = held[:0]
	s.holdMu.Unlock()
}

// hold reports that a Release will push out the reply that x has just got. x.out.mu is held.
func (s *Server) hold(x *session) bool {
	s.holdMu.Lock()
	defer s.holdMu.Unlock()
	if s.holders == 0 {
		return false
	}
	if !x.isHeld {
		x.isHeld = true
		s.held = append(s.held, x)
	}
	return true
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	st := s.count.snapshot()
	for _, x := range *s.sessions.Load() {
		x.out.mu.Lock()
		st.Pending += x.inFlight()
		st.QueuedBytes += len(x.out.buf) + len(x.out.rest)
		x.out.mu.Unlock()
		st.Connections++
	}
	return st
}

// serve takes one connection from handshake to end.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	s.mu.Lock()
	s.open++
	full := s.open > s.opts.MaxConnections
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
	}()
	in := &inbox{src: conn, maxFrame: maxHello, count: &s.count}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	id, err := welcome(conn, in, s.opts.Identity, s.admit(full), s.opts.speak, s.opts.HandshakeTimeout)
	if !stop() {
		return
	}
	if err != nil {
		s.refused(id, conn, err)
		return
	}
	in.src, in.maxFrame = rawio.NewReader(conn), s.frame
	x := newSession(s, conn, in)
	s.list(func(l []*session) []*session { return append(l, x) })
	s.count.connects.Add(1)
	s.opts.Logger.Debug("peer connected", "node", id.Node, "boot", id.Boot)
	x.run(ctx)
	s.list(func(l []*session) []*session {
		return slices.DeleteFunc(l, func(y *session) bool { return y == x })
	})
}

func (s *Server) admit(full bool) func(Identity) error {
	if full {
		return func(Identity) error {
			return &RefusedError{Code: Full, Text: fmt.Sprintf("%d connections are open", s.opts.MaxConnections)}
		}
	}
	return s.opts.Admit
}

// list replaces the list of sessions by change of a copy.
func (s *Server) list(change func([]*session) []*session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := change(slices.Clone(*s.sessions.Load()))
	s.sessions.Store(&next)
}

// refused logs a failed handshake, once a minute for each kind and node.
func (s *Server) refused(id Identity, conn net.Conn, err error) {
	s.count.refusals.Add(1)
	level, kind := slog.LevelInfo, "broken"
	var no *RefusedError
	if errors.As(err, &no) {
		kind = no.Code.String()
		if no.Code == WrongCluster || no.Code == SameNode || no.Code == NoVersion {
			level = slog.LevelError // only a person can put that right
		}
	}
	if s.quiet.allow(kind+string(id.Node), time.Now()) {
		s.opts.Logger.Log(context.Background(), level, "peer refused", "node", id.Node, "addr", conn.RemoteAddr().String(), "error", err)
	}
}
