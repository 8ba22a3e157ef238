package peer

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/message"
)

// silent is a peer that answers pings until it is told to be silent, and requests never.
type silent struct {
	mu    sync.Mutex
	quiet bool
	conns int
	pings int
}

// seen returns the connections and pings so far; set makes the peer silent or not.
func (s *silent) seen() (conns, pings int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns, s.pings
}

func (s *silent) set(quiet bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = quiet
}

func (s *silent) serve(t *testing.T, p *pipes) {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := p.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns++
		s.mu.Unlock()
		all.Go(func() { s.talk(t, conn) })
	}
}

func (s *silent) talk(t *testing.T, conn net.Conn) {
	in := overhear(t, conn)
	for in.fill() == nil {
		for frame, _ := in.next(); frame != nil; frame, _ = in.next() {
			h, _ := message.ParseHead(frame)
			s.mu.Lock()
			speak := h.Type == typePing && !s.quiet
			if speak {
				s.pings++
			}
			s.mu.Unlock()
			if speak {
				_, _ = conn.Write(message.AppendControl(nil, typePong, h.ID, nil))
			}
		}
	}
}

// quietly runs f with a client of a silent peer, in simulated time.
func quietly(t *testing.T, o ClientOptions, f func(c *Client, s *silent)) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newPipes(), &silent{}
		o.Node, o.Identity, o.Dialer = serverID, identity(clientID), p
		c := NewClient(o)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { s.serve(t, p) })
		all.Go(func() { _ = c.Run(ctx) })
		synctest.Wait()
		f(c, s)
		cancel()
		p.Close()
		all.Wait()
	})
}

func TestHeartbeat(t *testing.T) {
	quietly(t, ClientOptions{}, func(c *Client, s *silent) {
		time.Sleep(time.Minute)
		synctest.Wait()
		if conns, pings := s.seen(); !c.Healthy() || conns != 1 || pings < 200 || pings > 241 {
			t.Fatalf("a quiet minute: healthy %v, %d connections, %d pings", c.Healthy(), conns, pings)
		}
		s.set(true)
		time.Sleep(500 * time.Millisecond)
		if !c.Healthy() {
			t.Error("suspected after half a second")
		}
		time.Sleep(800 * time.Millisecond)
		if c.Healthy() {
			t.Error("not suspected after 1.3 s")
		}
		if conns, _ := s.seen(); conns != 1 {
			t.Error("reconnected too early")
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if conns, _ := s.seen(); conns != 2 {
			t.Errorf("%d connections after 6.3 s of silence, want a second one", conns)
		}
		s.set(false)
		time.Sleep(time.Second)
		if !c.Healthy() {
			t.Error("not healthy though pings are answered")
		}
	})
}

// Up is told each time the peer is heard of again, and not in between.
func TestUp(t *testing.T) {
	var ups atomic.Int32
	quietly(t, ClientOptions{Up: func() { ups.Add(1) }}, func(c *Client, s *silent) {
		for want := int32(1); want < 4; want++ {
			time.Sleep(10 * time.Second)
			if n := ups.Load(); n != want || !c.Healthy() {
				t.Errorf("up %d times, healthy %v, want %d times", n, c.Healthy(), want)
			}
			s.set(true)
			time.Sleep(1300 * time.Millisecond)
			if c.Healthy() {
				t.Error("not suspected")
			}
			s.set(false)
		}
	})
}

// TestStoppedPeerIsNoticedWhileCallsWait: with calls pending, silence is noticed at the next tick.
func TestStoppedPeerIsNoticedWhileCallsWait(t *testing.T) {
	quietly(t, ClientOptions{}, func(c *Client, s *silent) {
		time.Sleep(10 * time.Second)
		s.set(true)
		r := &rig{client: c}
		q := read("k")
		q.Timeout = time.Second
		o := r.ask(q)
		c.Flush()
		time.Sleep(780 * time.Millisecond)
		if c.Healthy() {
			t.Error("still thought healthy")
		}
		if s := o.status(); s != message.TimedOut {
			t.Error(s)
		}
	})
}

func TestDeadlines(t *testing.T) {
	quietly(t, ClientOptions{}, func(c *Client, s *silent) {
		r := &rig{client: c}
		for i := range 50 {
			q := read("k")
			q.Timeout = time.Duration(i) * 37 * time.Millisecond // 0: the default
			start := time.Now()
			o := r.ask(q)
			if i%2 == 0 {
				c.Flush()
			}
			want := q.Timeout
			if want == 0 {
				want = 2 * time.Second
			}
			if s := o.status(); s != message.TimedOut {
				t.Fatalf("%v after %v", s, want)
			}
			if took := time.Since(start); took < want || took > want+25*time.Millisecond {
				t.Errorf("a deadline of %v took %v", want, took)
			}
			time.Sleep(time.Duration(i) * 11 * time.Millisecond)
		}
		if st := c.Stats(); st.Pending != 0 || st.Timeouts != 50 {
			t.Errorf("%+v", st)
		}
	})
}

// TestBackoff: a peer that is not there is not asked for too often, nor too rarely.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		p.Close()
		dials := &counting{Dialer: p}
		c := NewClient(ClientOptions{Node: serverID, Identity: identity(clientID), Dialer: dials})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_ = c.Run(ctx)
		if dials.n < 30 || dials.n > 70 {
			t.Errorf("%d attempts in a minute", dials.n)
		}
	})
}

type counting struct {
	Dialer
	n int
}

func (c *counting) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c.n++
	return c.Dialer.DialContext(ctx, network, addr)
}
