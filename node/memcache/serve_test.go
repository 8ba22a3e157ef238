package memcache

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kai/node/record"
)

// gate is a Store whose Execute waits.
type gate struct {
	*model
	entered, open chan struct{}
}

func (g gate) Session() Session { return gateSession{g, g.model.Session()} }

type gateSession struct {
	g gate
	Session
}

func (s gateSession) Execute(ops []record.Op, results []record.Result) time.Duration {
	s.g.entered <- struct{}{}
	<-s.g.open
	return s.Session.Execute(ops, results)
}

// serving is a Server whose end the test decides.
func serving(t *testing.T, o Options) (addr string, stop context.CancelFunc, done chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	done = make(chan error, 1)
	go func() { done <- NewServer(o).Serve(ctx, ln) }()
	return ln.Addr().String(), cancel, done
}

func eof(t *testing.T, nc net.Conn) {
	t.Helper()
	if rest, err := io.ReadAll(nc); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v, want the end", rest, err)
	}
	nc.Close()
}

// TestDrain: when the context ends, what is in flight is answered, and idle or half-sent requests
// keep nobody waiting.
func TestDrain(t *testing.T) {
	g := gate{newModel(), make(chan struct{}), make(chan struct{})}
	addr, stop, done := serving(t, permissive(g.model).with(g))
	idle, half, busy := dial(t, addr), dial(t, addr), dial(t, addr)
	io.WriteString(idle, "version\r\n")
	expect(t, idle, "VERSION 1.6.27-kai\r\n")
	io.WriteString(half, "version\r\nset a 0 0 10\r\n123")
	expect(t, half, "VERSION 1.6.27-kai\r\n")
	io.WriteString(busy, "set a 0 0 1\r\n1\r\nget a\r\n")
	<-g.entered
	stop()
	eof(t, idle)
	eof(t, half)
	select {
	case err := <-done:
		t.Fatalf("Serve returned with a request in flight: %v", err)
	default:
	}
	go func() { // both requests may be one batch, or two
		for range g.entered {
		}
	}()
	close(g.open)
	expect(t, busy, "STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n")
	eof(t, busy)
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	close(g.entered)
	if g.sessions != g.closed || g.sessions != 1 {
		t.Errorf("%d sessions opened, %d closed; want one", g.sessions, g.closed)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("still listening")
	}
}

func (o Options) with(s Store) Options {
	o.Store = s
	return o
}

// TestDrainEndsWithoutReaders: a client that does not take its answers delays the end by no more than
// DrainTimeout.
func TestDrainEndsWithoutReaders(t *testing.T) {
	h := &holding{value: make([]byte, 1<<20), held: map[*holdingSession]int{}, calls: map[*holdingSession]int{}}
	h.moved = sync.NewCond(&h.mu)
	addr, stop, done := serving(t, Options{Store: h, DrainTimeout: 50 * time.Millisecond})
	nc := dial(t, addr)
	io.WriteString(nc, "get"+strings.Repeat(" k", 1000)+"\r\n")
	if _, err := io.CopyN(io.Discard, nc, 1<<20); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestMaxConnections(t *testing.T) {
	o := permissive(newModel())
	o.MaxConnections = 2
	_, addr := start(t, o)
	first, second := dial(t, addr), dial(t, addr)
	for _, nc := range []net.Conn{first, second} {
		io.WriteString(nc, "version\r\n")
		expect(t, nc, "VERSION 1.6.27-kai\r\n")
	}
	third := dial(t, addr)
	expect(t, third, tooMany)
	eof(t, third)
	io.WriteString(first, "stats\r\n")
	first.CloseWrite()
	stats, _ := io.ReadAll(first)
	for _, want := range []string{"STAT rejected_connections 1\r\n", "STAT curr_connections 2\r\n", "STAT max_connections 2\r\n"} {
		if !strings.Contains(string(stats), want) {
			t.Errorf("stats lack %q: %s", want, stats)
		}
	}
	for got := tooMany; got == tooMany; { // until the server has seen that first is gone
		nc := dial(t, addr)
		io.WriteString(nc, "mz\r\n")
		nc.CloseWrite()
		answer, err := io.ReadAll(nc)
		if got = string(answer); err != nil {
			got = tooMany // reset: refused with our request unread
		}
		nc.Close()
	}
}

// shaky is a listener that has run out of file descriptors at first.
type shaky struct {
	net.Listener
	faults int
}

func (l *shaky) Accept() (net.Conn, error) {
	if l.faults > 0 {
		l.faults--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAcceptErrorsPass(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- NewServer(permissive(newModel())).Serve(context.Background(), &shaky{ln, 3}) }()
	nc := dial(t, ln.Addr().String())
	io.WriteString(nc, "version\r\n")
	expect(t, nc, "VERSION 1.6.27-kai\r\n")
	nc.Close()
	ln.Close() // by somebody else: accepting has become impossible
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}

// TestListenerFailureDoesNotWait: with the listener gone for good, Serve drains and returns.
func TestListenerFailureDrains(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- NewServer(permissive(newModel())).Serve(context.Background(), ln) }()
	nc := dial(t, ln.Addr().String())
	io.WriteString(nc, "version\r\n")
	expect(t, nc, "VERSION 1.6.27-kai\r\n")
	ln.Close()
	eof(t, nc)
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}

// TestHalfClose is printf | nc: the input ends behind complete requests, which are all answered.
func TestHalfClose(t *testing.T) {
	_, addr := start(t, permissive(newModel()))
	if got := talk(t, addr, strings.Repeat("get a\r\n", 1000)+"set a 0 0 5\r\n123"); got != strings.Repeat(lineEnd, 1000) {
		t.Errorf("%d bytes of answers", len(got))
	}
}

// TestClientsThatLeaveUnseen: the end of a client, or a reset, has come before the read that brought its
// last request, so that nothing more arrives; and the connection is one that trusts its client.
func TestClientsThatLeaveUnseen(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn){
		"end":   func(nc *net.TCPConn) { nc.CloseWrite() },
		"reset": func(nc *net.TCPConn) { nc.SetLinger(0); nc.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			g := gate{newModel(), make(chan struct{}), make(chan struct{})}
			addr, stop, done := serving(t, permissive(g.model).with(g))
			nc := dial(t, addr)
			for range trustAfter {
				io.WriteString(nc, "version\r\n")
				expect(t, nc, "VERSION 1.6.27-kai\r\n")
			}
			io.WriteString(nc, "set a 0 0 1 noreply\r\n1\r\n")
			<-g.entered // busy: what comes now is read later, together
			io.WriteString(nc, "set b 0 0 1 noreply\r\n1\r\n")
			leave(nc)
			time.Sleep(20 * time.Millisecond) // for the loopback; too short would only test less
			go func() {
				for range g.entered {
				}
			}()
			close(g.open)
			for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
				g.mu.Lock()
				closed := g.closed
				g.mu.Unlock()
				if closed == 1 {
					break
				}
				if time.Since(start) > 20*time.Second {
					t.Fatal("the connection is still there")
				}
			}
			stop()
			if err := <-done; err != nil {
				t.Errorf("Serve: %v", err)
			}
			close(g.entered)
		})
	}
}

// TestVanishingClients: clients that leave in the middle of anything leave nothing behind.
func TestVanishingClients(t *testing.T) {
	m := newModel()
	addr, stop, done := serving(t, permissive(m))
	for range 20 {
		for _, in := range []string{"", "ge", "set a 0 0 100000\r\nxxx", "set a 0 0 1\r\n1\r\n", "set a 0 0 9999999\r\nxx", strings.Repeat("get a b c\r\n", 1000)} {
			nc := dial(t, addr)
			io.WriteString(nc, in)
			nc.SetLinger(0) // reset
			nc.Close()
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if m.sessions != m.closed {
		t.Errorf("%d sessions opened, %d closed", m.sessions, m.closed)
	}
}
