//go:build unix

package peer

import (
	"fmt"
	"io"
	"net"
	"syscall"
)

// tryWriter writes what the kernel takes at once, and never waits for the peer.
type tryWriter struct {
	raw syscall.RawConn
	fn  func(fd uintptr) bool // once, made here so that a write allocates nothing
	p   []byte
	n   int
	err error
}

// newTryWriter returns nil for a connection that is not the kernel's.
func newTryWriter(conn net.Conn) *tryWriter {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &tryWriter{raw: raw}
	w.fn = w.once
	return w
}

// write returns how many bytes of p the kernel took; fewer than all of them is no error. One
// goroutine at a time.
func (w *tryWriter) write(p []byte) (int, error) {
	w.p, w.n, w.err = p, 0, nil
	err := w.raw.Write(w.fn)
	w.p = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}

// once returns true always: false would mean to wait until the socket is writable.
func (w *tryWriter) once(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), w.p)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
		case err != nil:
			w.err = fmt.Errorf("write: %w", err)
		case n <= 0 && len(w.p) > 0:
			w.err = io.ErrUnexpectedEOF
		default:
			w.n = n
		}
		return true
	}
}
