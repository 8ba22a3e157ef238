// Package rawio makes short system calls on descriptors that do not block, without telling Go's
// scheduler.
//
// The scheduler takes a thread in a system call for one that may be gone for long: when the kernel
// suspends it on the way (on a busy machine, nearly always), another thread is woken to take its
// place, and a watcher looks every 20 µs for more of the kind. With three nodes on two cores that
// was a quarter of all processor time. The price: until such a call returns, the garbage collector
// cannot stop its thread; so only calls that never wait belong here. A write that is to be durable does
// wait, and is given to the kernel to be done beside: WriteSync.
package rawio

import (
	"io"
	"net"
	"syscall"
)

// Reader reads a connection as its Read does: it waits until there is something. One goroutine at a
// time.
type Reader struct {
	raw syscall.RawConn
	fn  func(fd uintptr) bool // once, made here so that a read allocates nothing
	p   []byte
	n   int
	err error
}

// NewReader returns conn itself if it is not the kernel's.
func NewReader(conn net.Conn) io.Reader {
	raw := rawConn(conn)
	if raw == nil {
		return conn
	}
	r := &Reader{raw: raw}
	r.fn = r.once
	return r
}

func rawConn(conn net.Conn) syscall.RawConn {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	r.p, r.n, r.err = p, 0, nil
	err := r.raw.Read(r.fn)
	r.p = nil
	if err == nil {
		err = r.err
	}
	return r.n, err
}

// once is called by the runtime's poller, first at once and then when fd is readable; returning false
// means to wait.
func (r *Reader) once(fd uintptr) bool {
	n, err := receive(fd, r.p)
	switch {
	case err == syscall.EAGAIN:
		return false
	case err != nil:
		r.err = &net.OpError{Op: "read", Net: "tcp", Err: err}
	case n == 0 && len(r.p) > 0:
		r.err = io.EOF
	default:
		r.n = n
	}
	return true
}

// Writer writes to a connection what the kernel takes at once.
type Writer struct {
	raw syscall.RawConn
	fn  func(fd uintptr) bool
	p   []byte
	n   int
	err error
}

// NewWriter returns nil for a connection that is not the kernel's.
func NewWriter(conn net.Conn) *Writer {
	raw := rawConn(conn)
	if raw == nil {
		return nil
	}
	w := &Writer{raw: raw}
	w.fn = w.once
	return w
}

// TryWrite returns how many bytes of p the kernel took; fewer than all of them is no error. It never
// waits for the peer, but fails once the connection's write deadline has passed. One goroutine at a
// time.
func (w *Writer) TryWrite(p []byte) (int, error) {
	w.p, w.n, w.err = p, 0, nil
	err := w.raw.Write(w.fn)
	w.p = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}

// once returns true always: false would mean to wait until fd is writable.
func (w *Writer) once(fd uintptr) bool {
	n, err := send(fd, w.p)
	switch {
	case err == syscall.EAGAIN:
	case err != nil:
		w.err = &net.OpError{Op: "write", Net: "tcp", Err: err}
	case n == 0 && len(w.p) > 0:
		w.err = io.ErrUnexpectedEOF
	default:
		w.n = n
	}
	return true
}
