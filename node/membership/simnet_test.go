package membership

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// simnet is a network of in-memory transports: packets and streams with delay, packet loss and cut
// links, under virtual time. (memberlist's own MockNetwork has unbuffered channels in its
// senders and deadlocks under synctest.)
type simnet struct {
	mu    sync.Mutex
	rand  *rand.Rand
	hosts map[string]*simTransport
	// delay is the longest delay one way; loss the share of packets lost.
	delay time.Duration
	loss  float64
	// cut reports that nothing passes between two addresses.
	cut func(a, b string) bool
	// What was sent, whether or not it arrived.
	packets, packetBytes, streams, streamBytes atomic.Int64
}

func newSimnet(seed uint64) *simnet {
	return &simnet{
		rand: rand.New(rand.NewPCG(seed, 1)), hosts: map[string]*simTransport{},
		delay: time.Millisecond, cut: func(a, b string) bool { return false },
	}
}

func (n *simnet) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// route returns the host at an address, how long a message takes, and whether it arrives.
func (n *simnet) route(from, to string) (host *simTransport, delay time.Duration, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[to], time.Duration(n.rand.Int64N(int64(n.delay)) + 1), n.cut(from, to) || n.rand.Float64() < n.loss
}

func (n *simnet) isCut(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut(from, to)
}

type simTransport struct {
	net     *simnet
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (n *simnet) transport(addr string) *simTransport {
	t := &simTransport{n, netip.MustParseAddrPort(addr), make(chan *memberlist.Packet, 4096), make(chan net.Conn, 256)}
	n.set(func() { n.hosts[addr] = t })
	return t
}

func (t *simTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(t.addr.Addr().AsSlice()), int(t.addr.Port()), nil
}

func (t *simTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	host, delay, lost := t.net.route(t.addr.String(), addr)
	t.net.packets.Add(1)
	t.net.packetBytes.Add(int64(len(b)))
	if host != nil && !lost {
		p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(t.addr)}
		time.AfterFunc(delay, func() {
			p.Timestamp = time.Now()
			select {
			case host.packets <- p:
			default:
			}
		})
	}
	return time.Now(), nil
}

func (t *simTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	host, delay, _ := t.net.route(t.addr.String(), addr)
	switch {
	case t.net.isCut(t.addr.String(), addr) || delay > timeout:
		time.Sleep(timeout)
		return nil, fmt.Errorf("dial %s: %w", addr, os.ErrDeadlineExceeded)
	case host == nil:
		return nil, fmt.Errorf("dial %s: refused", addr)
	}
	time.Sleep(delay)
	t.net.streams.Add(1)
	there, back := newLane(), newLane()
	a, b := t.addr.String(), addr
	select {
	case host.streams <- &simConn{net: t.net, from: b, to: a, in: there, out: back}:
		return &simConn{net: t.net, from: a, to: b, in: back, out: there}, nil
	default:
		return nil, errors.New("backlog full")
	}
}

func (t *simTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *simTransport) StreamCh() <-chan net.Conn           { return t.streams }

func (t *simTransport) Shutdown() error {
	t.net.set(func() {
		if t.net.hosts[t.addr.String()] == t {
			delete(t.net.hosts, t.addr.String())
		}
	})
	return nil
}

// lane is one direction of a stream.
type lane struct {
	mu     sync.Mutex
	chunks []chunk
	closed bool
	stir   chan struct{}
}

type chunk struct {
	at time.Time
	b  []byte
}

func newLane() *lane { return &lane{stir: make(chan struct{}, 1)} }

func (l *lane) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	signal(l.stir)
}

// next returns what can be read now, or how long to wait for it (0: until something changes).
func (l *lane) next(into []byte) (n int, wait time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.chunks) == 0 {
		if l.closed {
			return 0, 0, io.EOF
		}
		return 0, 0, nil
	}
	head := &l.chunks[0]
	if wait := time.Until(head.at); wait > 0 {
		return 0, wait, nil
	}
	n = copy(into, head.b)
	if head.b = head.b[n:]; len(head.b) == 0 {
		l.chunks = l.chunks[1:]
	}
	return n, 0, nil
}

type simConn struct {
	net      *simnet
	from, to string
	in, out  *lane
	mu       sync.Mutex
	deadline time.Time
}

func (c *simConn) Read(b []byte) (int, error) {
	for {
		n, wait, err := c.in.next(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		c.mu.Lock()
		deadline := c.deadline
		c.mu.Unlock()
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
			if wait == 0 || left < wait {
				wait = left
			}
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-timer:
		case <-c.in.stir:
		}
	}
}

// Write never blocks; what is written while the link is cut is lost, and the reader waits.
func (c *simConn) Write(b []byte) (int, error) {
	_, delay, _ := c.net.route(c.from, c.to)
	c.net.streamBytes.Add(int64(len(b)))
	if c.net.isCut(c.from, c.to) {
		return len(b), nil
	}
	c.out.change(func() {
		at := time.Now().Add(delay)
		if n := len(c.out.chunks); n > 0 && c.out.chunks[n-1].at.After(at) {
			at = c.out.chunks[n-1].at
		}
		c.out.chunks = append(c.out.chunks, chunk{at, append([]byte(nil), b...)})
	})
	return len(b), nil
}

func (c *simConn) Close() error {
	c.out.change(func() { c.out.closed = true })
	c.in.change(func() { c.in.closed = true })
	return nil
}

func (c *simConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	signal(c.in.stir)
	return nil
}
func (c *simConn) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }
func (c *simConn) SetWriteDeadline(time.Time) error  { return nil }
func (c *simConn) LocalAddr() net.Addr               { return simAddr(c.from) }
func (c *simConn) RemoteAddr() net.Addr              { return simAddr(c.to) }

type simAddr string

func (simAddr) Network() string  { return "sim" }
func (a simAddr) String() string { return string(a) }
