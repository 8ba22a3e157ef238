package memcache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// tooMany is what memcached answers beyond its connection limit (maxconns_fast, its default).
const tooMany = "ERROR Too many open connections\r\n"

const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// Serve accepts connections on ln until ctx ends, then closes ln, lets every connection answer the
// requests it has read, and closes it. It returns when all connections are gone: after at most
// DrainTimeout plus the Store's request timeout. It returns nil then, or the error that made
// accepting impossible. Serve may be called once for each of several listeners.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		ln.Close()
		close(closed)
	})
	l := &listening{server: s}
	sweeping, stopSweep := context.WithCancel(ctx)
	defer stopSweep()
	l.wg.Go(func() { l.sweep(sweeping) })
	err := l.accept(ctx, ln)
	stopSweep()
	if stop() {
		ln.Close()
	} else {
		<-closed // the port is free when Serve returns
	}
	l.drain()
	return err
}

// listening is one run of Serve.
type listening struct {
	server *Server
	wg     sync.WaitGroup
}

// accept hands connections to their goroutines. Errors such as EMFILE pass when connections close,
// so it waits and goes on; only a closed listener ends it.
func (l *listening) accept(ctx context.Context, ln net.Listener) error {
	wait := acceptBackoffMin
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			wait = acceptBackoffMin
			l.start(nc)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("memcache: accept: %w", err)
		default:
			l.server.opt.Logger.Error("accept failed, trying again", "error", err, "wait", wait)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
			wait = min(2*wait, acceptBackoffMax)
		}
	}
}

// start serves nc in its own goroutine, or turns it away.
func (l *listening) start(nc net.Conn) {
	s := l.server
	c := newConn(s, nc)
	s.mu.Lock()
	refused := len(s.conns) >= s.opt.MaxConnections
	if !refused {
		s.conns[c] = struct{}{}
		c.owner = l
		c.totals = &s.totals[s.serial%len(s.totals)]
		s.serial++
	}
	s.mu.Unlock()
	if refused {
		s.totals[0].n[rejectedConnections].Add(1)
		// A fresh socket has room for one line; the deadline is for the one that has not.
		nc.SetWriteDeadline(time.Now().Add(time.Second))
		nc.Write([]byte(tooMany))
		nc.Close()
		return
	}
	c.totals.n[totalConnections].Add(1)
	l.wg.Go(func() {
		defer s.forget(c)
		c.serve()
	})
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// each calls f for every connection of l.
func (l *listening) each(f func(*conn)) {
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	for c := range l.server.conns {
		if c.owner == l {
			f(c)
		}
	}
}

// drain ends l's connections. A read deadline in the past wakes the idle ones and stops the busy
// ones after the requests they have read; the write deadline is for clients that do not read.
func (l *listening) drain() {
	limit := time.Now().Add(l.server.opt.DrainTimeout)
	l.each(func(c *conn) {
		c.nc.SetWriteDeadline(limit)
		c.nc.SetReadDeadline(time.Unix(1, 0))
	})
	l.wg.Wait()
}
