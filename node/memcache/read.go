package memcache

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"kai/node/rawio"
)

// read waits for bytes and appends them to in. It reports false when there will be none: the
// client has ended its side, the connection failed, the server drains, or a request is longer than
// any can be.
//
// On a connection with a file descriptor the buffer is taken when the descriptor is readable, so
// that an idle connection holds none. This costs no system call more than net.Conn.Read, which also
// tries first and then waits.
func (c *conn) read() bool {
	if c.work != nil && !c.server.buffers.room(c.work) {
		return false
	}
	n, err := 0, error(nil)
	if c.raw != nil {
		if err = c.raw.Read(c.readFD); err == nil {
			n, err = c.got, c.gotErr
		}
	} else {
		c.attach()
		n, err = c.nc.Read(c.in[c.w:])
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.closing = true // drained
	}
	if n <= 0 || err != nil && err != io.EOF {
		return false
	}
	c.w += n
	c.counts[bytesRead] += uint64(n)
	return true
}

func (c *conn) attach() {
	if c.work == nil {
		c.work = c.server.buffers.get()
	}
}

// tryRead is called by the runtime's poller, first at once and then when fd is readable; returning
// false means to wait.
func (c *conn) tryRead(fd uintptr) bool {
	c.attach()
	c.got, c.gotErr = rawio.Read(fd, c.in[c.w:])
	if c.gotErr != syscall.EAGAIN {
		return true
	}
	if c.r == c.w {
		c.server.buffers.put(c.work)
		c.work = nil
	}
	return false
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
