package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

// Keys are "kaibench:" and eight digits, so that requests of one kind have one length.
const (
	keyPrefix = "kaibench:"
	keyDigits = 8
	keyLen    = len(keyPrefix) + keyDigits
	maxKeys   = 100_000_000
)

// grace bounds how long a reply may take after the end of the run, and how long connecting may.
const grace = 5 * time.Second

// request is one request in flight.
type request struct {
	key uint32
	set bool
	due time.Duration // since the window's base; its latency counts from here
}

// client is one connection with all that is needed to use it without allocating. One goroutine uses
// it; under an open loop one more, which only sends.
type client struct {
	target string
	nc     net.Conn
	gone   atomic.Bool // close was called: do not reconnect

	rng    *rand.Rand
	gets   int    // per cent
	keys   int    // number of keys
	head   []byte // of a set, behind its key
	filler []byte // random bytes values are cut from
	value  int    // bytes
	hit    bool   // gets must hit

	out  []byte // requests being gathered
	in   []byte // in[r:w] was read and not consumed
	r, w int
	base time.Time
	// readAt is when the bytes last read came in, since base.
	readAt time.Duration

	tally tally
}

// dial opens all connections, dealt out over the targets in turn.
func (l Load) dial(ctx context.Context) ([]*client, error) {
	filler := printable(rand.New(rand.NewPCG(l.Seed, 0)), l.ValueBytes+4096)
	clients := make([]*client, 0, l.Conns)
	for i := range l.Conns {
		c := &client{
			target: l.Targets[i%len(l.Targets)],
			rng:    rand.New(rand.NewPCG(l.Seed, uint64(i)+1)),
			gets:   l.Gets, keys: l.Keys, value: l.ValueBytes, hit: l.MustHit,
			head:   fmt.Appendf(nil, " 0 0 %d\r\n", l.ValueBytes),
			filler: filler,
			in:     make([]byte, 16<<10),
			base:   time.Now(),
			tally:  newTally(),
		}
		clients = append(clients, c)
		if err := c.connect(ctx); err != nil {
			for _, c := range clients {
				c.close()
			}
			return nil, err
		}
	}
	return clients, nil
}

// printable makes n random bytes of text, which no storage engine can compress away for free.
func printable(rng *rand.Rand, n int) []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[rng.IntN(len(letters))]
	}
	return b
}

func (c *client) connect(ctx context.Context) error {
	d := net.Dialer{Timeout: grace}
	nc, err := d.DialContext(ctx, "tcp", c.target)
	if err != nil {
		return err
	}
	c.nc, c.r, c.w = nc, 0, 0
	return nil
}

// close ends the connection for good; it may be called from any goroutine and more than once.
func (c *client) close() {
	c.gone.Store(true)
	if c.nc != nil {
		c.nc.Close()
	}
}

// draw picks the next request.
func (c *client) draw() request {
	return request{key: uint32(c.rng.IntN(c.keys)), set: c.rng.IntN(100) >= c.gets}
}

// add gathers the bytes of q in c.out.
func (c *client) add(q request) {
	if !q.set {
		c.out = append(c.out, "get "...)
		c.out = appendKey(c.out, q.key)
		c.out = append(c.out, '\r', '\n')
		return
	}
	c.out = append(c.out, "set "...)
	c.out = appendKey(c.out, q.key)
	c.out = append(c.out, c.head...)
	at := len(c.out)
	c.out = appendKey(c.out, q.key) // a value starts with its key, so that a get can be verified
	if len(c.out) > at+c.value {
		c.out = c.out[:at+c.value]
	} else {
		n := at + c.value - len(c.out)
		from := c.rng.IntN(len(c.filler) - n)
		c.out = append(c.out, c.filler[from:from+n]...)
	}
	c.out = append(c.out, '\r', '\n')
}

func appendKey(dst []byte, key uint32) []byte {
	dst = append(dst, keyPrefix...)
	var d [keyDigits]byte
	for i := keyDigits - 1; i >= 0; i-- {
		d[i] = '0' + byte(key%10)
		key /= 10
	}
	return append(dst, d[:]...)
}

// send writes what was gathered.
func (c *client) send() error {
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	return err
}

// fill reads at least one more byte behind in[r:w].
func (c *client) fill() error {
	switch {
	case c.r == c.w:
		c.r, c.w = 0, 0
	case c.w == len(c.in) && c.r > 0:
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	if c.w == len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	n, err := c.nc.Read(c.in[c.w:])
	c.readAt = time.Since(c.base)
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// outcome of one request, as its reply tells it.
type outcome uint8

const (
	hit outcome = iota
	stored
	miss
	refused // an error line: the server said that it could not
	wrong   // another key, another value, or not the protocol
	broken  // no reply: connection lost or timed out
	numOutcomes
)

// errProtocol says that the bytes can no longer be told apart into replies.
var errProtocol = errors.New("reply is not the memcache protocol")

// reply reads one reply, which belongs to q. After an error the connection is of no more use.
func (c *client) reply(q request) (outcome, error) {
	line, err := c.line()
	if err != nil {
		return broken, err
	}
	switch {
	case q.set && string(line) == "STORED":
		return stored, nil
	case !q.set && string(line) == "END":
		return miss, nil
	case !q.set && bytes.HasPrefix(line, valueWord):
		return c.found(q, line[len(valueWord):])
	case bytes.HasPrefix(line, serverError):
		return refused, nil
	}
	return wrong, fmt.Errorf("%w: %q", errProtocol, line[:min(len(line), 80)])
}

var (
	valueWord   = []byte("VALUE ")
	serverError = []byte("SERVER_ERROR")
	blockEnd    = []byte("\r\nEND\r\n")
)

// found reads the rest of a get's reply: head is "<key> <flags> <bytes>".
func (c *client) found(q request, head []byte) (outcome, error) {
	var want [keyLen]byte
	appendKey(want[:0], q.key)
	good := bytes.HasPrefix(head, want[:])
	n := 0
	for _, d := range head[bytes.LastIndexByte(head, ' ')+1:] {
		if d < '0' || d > '9' || n > 1<<30 {
			return wrong, fmt.Errorf("%w: VALUE %q", errProtocol, head)
		}
		n = 10*n + int(d-'0')
	}
	for c.w-c.r < n+len(blockEnd) {
		if err := c.fill(); err != nil {
			return broken, err
		}
	}
	value := c.in[c.r : c.r+n]
	c.r += n
	if !bytes.HasPrefix(c.in[c.r:c.w], blockEnd) {
		return wrong, fmt.Errorf("%w: no END behind a value", errProtocol)
	}
	c.r += len(blockEnd)
	if k := min(n, keyLen); !good || n != c.value || !bytes.Equal(value[:k], want[:k]) {
		return wrong, nil
	}
	return hit, nil
}

// line consumes one line and returns it without its line break; valid until the next read.
func (c *client) line() ([]byte, error) {
	for from := c.r; ; {
		if i := bytes.IndexByte(c.in[from:c.w], '\n'); i >= 0 {
			line := c.in[c.r : from+i]
			c.r = from + i + 1
			return bytes.TrimSuffix(line, crlf[:1]), nil
		}
		if c.w-c.r > 64<<10 {
			return nil, fmt.Errorf("%w: a line without an end", errProtocol)
		}
		seen := c.w - c.r
		if err := c.fill(); err != nil {
			return nil, err
		}
		from = c.r + seen
	}
}

var crlf = []byte("\r\n")
