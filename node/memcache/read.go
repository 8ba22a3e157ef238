package memcache

import (
	"errors"
	"os"
	"syscall"
	"time"

	"kai/node/rawio"
)

// serve answers requests until the client ends the connection, an error does, or Serve drains.
func (c *conn) serve() {
	defer c.close()
	var err error
	if c.source != nil {
		err = c.source.Serve(c.step)
	} else {
		for err == nil {
			err = c.read()
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.closing = true // drained
	}
}

// step reads what is there and answers it.
//
// The buffer is taken when the descriptor is readable, so that an idle connection holds none. A read
// that has not filled it has read all there was, and the connection waits without another one; but
// for the client's end, which it may miss: see trust.
func (c *conn) step() rawio.Then {
	if !c.ready() {
		return rawio.End
	}
	n, err := c.source.Receive(c.in[c.w:])
	if err == syscall.EAGAIN {
		c.rest()
		return rawio.Wait
	}
	full := n == len(c.in)-c.w
	if err != nil || !c.answer(n) {
		return rawio.End
	}
	if !rawio.ShortIsAll || full || !c.trust.wait() {
		return rawio.Again
	}
	c.rest()
	return rawio.Wait
}

// errDone ends a connection that has no descriptor, and nothing to say.
var errDone = errors.New("done")

// read is step for a connection without a descriptor. It holds its buffer while it waits.
func (c *conn) read() error {
	if !c.ready() {
		return errDone
	}
	n, err := c.nc.Read(c.in[c.w:])
	if n > 0 && !c.answer(n) {
		return errDone
	}
	return err
}

// ready makes room for what is to be read. It reports false when a request is longer than any can be.
func (c *conn) ready() bool {
	if c.work == nil {
		c.work = c.server.buffers.get()
	}
	return c.server.buffers.room(c.work)
}

// rest gives the buffer back if nothing is in it.
func (c *conn) rest() {
	if c.r == c.w {
		c.server.buffers.put(c.work)
		c.work = nil
	}
}

// lingerFor and lingerBytes bound linger.
const (
	lingerFor   = 200 * time.Millisecond
	lingerBytes = 1 << 20
)

// linger lets the client read its last replies: closing a socket that has unread input resets the
// connection, which throws away what the client has not read yet. So it ends the sending side, and
// reads on until the client closes too, for a short while.
func (c *conn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if !c.closing {
		return // the client has closed, or the connection has failed
	}
	c.nc.SetReadDeadline(time.Now().Add(lingerFor))
	var discard [512]byte
	for n := 0; n < lingerBytes; {
		m, err := c.nc.Read(discard[:])
		if err != nil {
			return
		}
		n += m
	}
}
