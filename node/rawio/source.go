package rawio

import (
	"io"
	"net"
	"syscall"
)

// Then is what a step of Source.Serve wants next.
type Then int

const (
	// Again: there may be more to read.
	Again Then = iota
	// Wait: come back when something has arrived since the last Receive, or the end if that one said
	// syscall.EAGAIN.
	Wait
	// End: Serve returns.
	End
)

// Source is the reading side of a TCP connection, for one goroutine.
//
// Who reads, answers, and reads again learns from the second read only that there is nothing yet. A
// read that has not filled its buffer knows that already, but cannot make use of it by RawConn.Read:
// each begins by forgetting what has arrived until then, so that there would be nothing to wait for.
// Hence a callback, step, which reads, answers and waits within one RawConn.Read.
//
// One thing such a step may miss: when the peer has ended its side, or reset the connection, before
// the Receive that did not fill its buffer, nothing arrives any more. Somebody must look: Over.
type Source struct {
	raw  syscall.RawConn
	fn   func(fd uintptr) bool // once, made here so that nothing is allocated later
	step func() Then
	fd   uintptr // during a step
	then Then
	over looker
}

// NewSource returns nil if conn is not the kernel's.
func NewSource(conn net.Conn) *Source {
	raw := rawConn(conn)
	if raw == nil {
		return nil
	}
	s := &Source{raw: raw}
	s.fn, s.over.fn = s.once, s.over.once
	return s
}

// Serve calls step, first at once and then whenever there may be something to read, until step says
// End (nil), or until it would wait and the read deadline has passed or the connection is closed (the
// error). It looks at both between any two steps.
//
// A Close of the connection by another goroutine blocks until the step that runs has returned; by the
// step itself, for ever.
func (s *Source) Serve(step func() Then) error {
	s.step, s.then = step, Again
	for s.then != End {
		if err := s.raw.Read(s.fn); err != nil {
			return err
		}
	}
	return nil
}

// once is called by the runtime's poller; returning false means to wait until fd is readable.
func (s *Source) once(fd uintptr) bool {
	s.fd = fd
	s.then = s.step()
	look()
	return s.then != Wait
}

// Receive reads what is there, up to len(p) > 0 bytes; only to be called by a step. Nothing there is
// syscall.EAGAIN, after which the step should say Wait; the end of the peer's side is io.EOF.
func (s *Source) Receive(p []byte) (n int, err error) {
	n, err = receive(s.fd, p)
	switch {
	case err == syscall.EAGAIN:
		return 0, err
	case err != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: err}
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Over reports that all has been read that will ever come: the peer has ended its side, or the
// connection is broken. It does not block. For one goroutine, which may be another than Serve's.
func (s *Source) Over() bool {
	s.over.is = true // a closed connection is not looked at
	_ = s.raw.Control(s.over.fn)
	return s.over.is
}

type looker struct {
	fn func(fd uintptr)
	p  [1]byte
	is bool
}

func (l *looker) once(fd uintptr) {
	n, err := peek(fd, l.p[:])
	l.is = err != syscall.EAGAIN && (err != nil || n == 0)
}
