package memcache

import (
	"net"

	"kai/node/rawio"
	"kai/node/record"
)

// conn is one client connection, served by one goroutine. Its fields are that goroutine's alone,
// except nc, whose deadlines and Close may come from others.
type conn struct {
	server  *Server
	owner   *listening
	nc      net.Conn
	source  *rawio.Source // nil when nc has no file descriptor (net.Pipe)
	try     *rawio.Writer // like source
	trust   trust
	session Session
	totals  *shard
	counts  [numCounters]uint64 // since the last add to totals
	vec     [2][]byte           // for writev
	bufs    net.Buffers         // vec, as writev consumes it

	*work // nil while idle

	// need is the length that the request at in[r] is known to have; 0 when not known.
	need int
	// scanned counts the bytes behind in[r] that are known to hold no newline.
	scanned int
	// swallow counts the bytes that are still to be thrown away, before the next request.
	swallow uint64
	get     getState
	// expect estimates the bytes of a value that a get will return: see getLimit.
	expect int
	gets   int // keys that the batch looks up
	held   int // bytes of values that the last batch returned
	// started: the first byte has been looked at. closing: answer, then close.
	started, closing bool
}

func newConn(s *Server, nc net.Conn) *conn {
	return &conn{
		server: s, nc: nc, expect: expectAtFirst, totals: &s.totals[0],
		source: rawio.NewSource(nc), try: rawio.NewWriter(nc),
	}
}

// answer takes the n bytes that were read behind in[w], and answers all that is complete. It reports
// false when the connection ends.
func (c *conn) answer(n int) bool {
	c.w += n
	c.counts[bytesRead] += uint64(n)
	for c.parse() {
		if !c.execute() {
			return false
		}
	}
	if !c.flush() || c.closing {
		return false
	}
	c.letGo()
	return true
}

// execute runs the parsed batch and encodes the replies. It reports false when the client is gone.
func (c *conn) execute() bool {
	w := c.work
	if len(w.results) < len(w.ops) {
		w.results = make([]record.Result, cap(w.ops))
	}
	results := w.results[:len(w.ops)]
	if len(w.ops) > 0 {
		if c.session == nil {
			c.session = c.server.opt.Store.Session()
		}
		took := c.session.Execute(w.ops, results)
		c.totals.latencies.add(w.ops, results, took)
	}
	ok := c.encode(results)
	// References must not keep the Store's values, or a grown buffer, alive.
	clear(results)
	clear(w.ops)
	w.ops, w.entries = w.ops[:0], w.entries[:0]
	return ok
}

// letGo releases large values before the connection waits: an idle client must not pin them.
func (c *conn) letGo() {
	if c.held >= direct {
		c.session.Execute(nil, nil)
	}
	c.held = 0
}

// flush writes the reply buffer. It reports false when the client is gone.
func (c *conn) flush() bool {
	if len(c.out) == 0 {
		c.addCounts()
		return true
	}
	ok := c.write(c.out)
	c.out = c.out[:0]
	return ok
}

func (c *conn) write(b []byte) bool {
	n, err := 0, error(nil)
	if c.try != nil {
		n, err = c.try.TryWrite(b)
	}
	if err == nil && n < len(b) {
		var more int
		more, err = c.nc.Write(b[n:])
		n += more
	}
	c.counts[bytesWritten] += uint64(n)
	c.addCounts()
	return err == nil
}

// writeWith writes the reply buffer and v behind it, without copying v.
func (c *conn) writeWith(v []byte) bool {
	c.vec = [2][]byte{c.out, v}
	c.bufs = c.vec[:]
	n, err := c.bufs.WriteTo(c.nc)
	c.vec, c.bufs = [2][]byte{}, nil
	c.out = c.out[:0]
	c.counts[bytesWritten] += uint64(n)
	return err == nil
}

func (c *conn) close() {
	c.addCounts()
	c.linger()
	c.nc.Close()
	if c.session != nil {
		c.session.Close()
	}
	if c.work != nil {
		c.server.buffers.put(c.work)
		c.work = nil
	}
}

// op appends an operation to the batch and its place in the order of replies.
func (c *conn) op(op record.Op, e entry) {
	c.ops = append(c.ops, op)
	c.entries = append(c.entries, e)
}

// say appends a fixed reply line to the batch, unless the client asked for no reply.
func (c *conn) say(line string, noreply bool) {
	if !noreply {
		c.entries = append(c.entries, entry{text: line})
	}
}
