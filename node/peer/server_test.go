package peer

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"kai/node/message"
)

// dial makes a connection to a server by hand, behind the handshake.
func dial(t *testing.T, addr string) (net.Conn, *inbox) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	in := &inbox{src: conn, maxFrame: maxHello, count: new(counters)}
	if _, err := greet(conn, in, identity(clientID)(), serverID, nil, versions, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	in.maxFrame = message.MaxFrame(1 << 20)
	return conn, in
}

func replies(t *testing.T, in *inbox, n int) map[uint64]message.Status {
	t.Helper()
	got := map[uint64]message.Status{}
	for len(got) < n {
		frame, err := in.next()
		if err != nil {
			t.Fatal(err)
		}
		if frame == nil {
			if err := in.fill(); err != nil {
				t.Fatalf("after %d of %d replies: %v", len(got), n, err)
			}
			continue
		}
		var rep message.Reply
		id, err := message.ParseReply(frame, []byte("k"), &rep)
		if err != nil {
			t.Fatal(err)
		}
		got[id] = rep.Status
	}
	return got
}

func serveTCP(t *testing.T, o ServerOptions) (s *Server, addr string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Identity = identity(serverID)
	s = NewServer(o)
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { _ = s.Serve(ctx, ln) })
	stop = sync.OnceFunc(func() { cancel(); served.Wait() })
	t.Cleanup(stop)
	return s, ln.Addr().String(), stop
}

func TestServerTurnsAway(t *testing.T) {
	held := make(chan *message.Call, 100)
	_, addr, _ := serveTCP(t, ServerOptions{MaxCalls: 2, DrainTimeout: time.Nanosecond, Handler: handle(func(c *message.Call) { held <- c.Keep() })})
	conn, in := dial(t, addr)
	q := read("k")
	var out []byte
	for id := range uint64(4) {
		out = message.AppendRequest(out, id, &q)
	}
	out = message.AppendRequest(out, 4, &message.Request{Kind: message.Read}) // no key
	_, _ = conn.Write(out)
	// 0 and 1 are with the handler.
	got := replies(t, in, 3)
	if got[2] != message.Busy || got[3] != message.Busy || got[4] != message.Busy && got[4] != message.Invalid {
		t.Errorf("beyond MaxCalls: %v", got)
	}
	for range 2 {
		c := <-held
		c.Reply.Status = message.OK
		c.Completion.Done(c)
	}
	if got = replies(t, in, 2); got[0] != message.OK || got[1] != message.OK {
		t.Errorf("held calls: %v", got)
	}
	_, _ = conn.Write(message.AppendRequest(nil, 9, &message.Request{Kind: message.Read}))
	if got = replies(t, in, 1); got[9] != message.Invalid {
		t.Errorf("request without a key: %v", got)
	}
}

func TestOverdueRequestsDoNotReachTheHandler(t *testing.T) {
	reached := 0
	s := NewServer(ServerOptions{Handler: handle(func(*message.Call) { reached++ })})
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	x := newSession(s, far, nil)
	q := read("k")
	frame := message.AppendRequest(nil, 7, &q)
	if err := x.handle(frame, 1, 1+q.Timeout+1); err != nil {
		t.Fatal(err)
	}
	var rep message.Reply
	if _, err := message.ParseReply(x.out.buf, q.Key, &rep); err != nil || rep.Status != message.Busy || reached != 0 {
		t.Errorf("%v, %v, handler reached %d times", rep.Status, err, reached)
	}
	if err := x.handle(frame, 1, 1+q.Timeout); err != nil || reached != 1 {
		t.Errorf("in time: %v, handler reached %d times", err, reached)
	}
}

// TestServerEndsBadConnections: bytes that are no frames, or frames no client sends.
func TestServerEndsBadConnections(t *testing.T) {
	_, addr, _ := serveTCP(t, ServerOptions{Handler: newStore()})
	for name, say := range map[string][]byte{
		"nonsense": []byte("GET / HTTP/1.1\r\n\r\n"),
		"a reply":  message.AppendReply(nil, 1, &message.Reply{Status: message.OK}),
		"refusal":  appendRefuse(nil, &RefusedError{Code: WrongNode, Text: "no"}),
	} {
		conn, in := dial(t, addr)
		_, _ = conn.Write(say)
		if err := in.fill(); err == nil {
			t.Errorf("%s: the server says something", name)
		}
	}
}

// TestRepliesNobodyReads: the server stops reading requests when their replies pile up, and goes on
// when they are read.
func TestRepliesNobodyReads(t *testing.T) {
	st := newStore()
	s, addr, _ := serveTCP(t, ServerOptions{Handler: st, MaxQueueBytes: 64 << 10, WriteTimeout: time.Hour})
	conn, in := dial(t, addr)
	const n = 200000
	var written sync.WaitGroup
	written.Go(func() {
		q := read("k")
		var out []byte
		for id := range uint64(n) {
			if out = message.AppendRequest(out, id, &q); len(out) > 64<<10 || id == n-1 {
				if _, err := conn.Write(out); err != nil {
					t.Error(err)
				}
				out = out[:0]
			}
		}
	})
	for last := uint64(1); ; { // until nothing moves any more
		time.Sleep(50 * time.Millisecond)
		now := s.Stats().BytesIn
		if now == last {
			break
		}
		last = now
	}
	if queued := s.Stats().QueuedBytes; queued > 2*(64<<10)+2*readBuffer*4 {
		t.Errorf("%d bytes queued", queued)
	}
	if got := replies(t, in, n); len(got) != n {
		t.Errorf("%d replies", len(got))
	}
	written.Wait()
}

// TestServeAnswersBeforeItReturns: calls with the handler at the end are still answered.
func TestServeAnswersBeforeItReturns(t *testing.T) {
	held := make(chan *message.Call, 100)
	s, addr, stop := serveTCP(t, ServerOptions{DrainTimeout: time.Minute, Handler: handle(func(c *message.Call) { held <- c.Keep() })})
	conn, in := dial(t, addr)
	q := accept("k")
	_, _ = conn.Write(message.AppendRequest(message.AppendRequest(nil, 0, &q), 1, &q))
	first, second := <-held, <-held
	var stopped sync.WaitGroup
	stopped.Go(stop)
	for !(*s.sessions.Load())[0].ending.Load() {
		time.Sleep(time.Millisecond)
	}
	for _, c := range []*message.Call{second, first} {
		c.Reply.Status = message.OK
		c.Completion.Done(c)
	}
	if got := replies(t, in, 2); got[0] != message.OK || got[1] != message.OK {
		t.Errorf("%v", got)
	}
	conn.Close()
	stopped.Wait()
}

func TestMaxConnections(t *testing.T) {
	_, addr, _ := serveTCP(t, ServerOptions{MaxConnections: 1, Handler: newStore()})
	dial(t, addr)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := &inbox{src: conn, maxFrame: maxHello, count: new(counters)}
	_, err = greet(conn, in, identity(clientID)(), serverID, nil, versions, 5*time.Second)
	no, ok := err.(*RefusedError)
	if !ok || no.Code != Full {
		t.Errorf("second connection: %v", no)
	}
}

// Of sampled requests the server says what became of them, and of others nothing.
func TestSampledRequestsAreTold(t *testing.T) {
	type told struct {
		trace  [message.TraceLen]byte
		status message.Status
		took   time.Duration
	}
	heard := make(chan told, 9)
	_, addr, _ := serveTCP(t, ServerOptions{
		Handler: handle(func(c *message.Call) {
			c.Reply.Status = message.Busy
			if c.Kind == message.Prepare {
				time.Sleep(5 * time.Millisecond)
				c.Reply.Status = message.OK
			}
			c.Completion.Done(c)
		}),
		Sampled: func(c *message.Call, took time.Duration) { heard <- told{c.Trace, c.Reply.Status, took} },
	})
	conn, in := dial(t, addr)
	traced := [message.TraceLen]byte{0: 7, message.TraceLen - 1: 1}
	var frames []byte
	for i, q := range []message.Request{
		{Kind: message.Read, Key: []byte("k")}, {Kind: message.Read, Key: []byte("k"), Trace: [message.TraceLen]byte{0: 8}},
		{Kind: message.Prepare, Key: []byte("k"), Trace: traced}, {Kind: message.Read, Key: []byte("k")},
	} {
		frames = message.AppendRequest(frames, uint64(i+1), &q)
	}
	if _, err := conn.Write(frames); err != nil {
		t.Fatal(err)
	}
	replies(t, in, 4)
	if len(heard) != 1 {
		t.Fatalf("%d are told", len(heard))
	}
	if h := <-heard; h.trace != traced || h.status != message.OK || h.took < 5*time.Millisecond || h.took > time.Minute {
		t.Errorf("%+v", h)
	}
}
