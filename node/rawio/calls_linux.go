package rawio

import (
	"io"
	"os"
	"syscall"
	"unsafe"
)

// receive is recv(2), which is shorter than read(2) on a socket. It is repeated when a signal
// interrupts it; an error is a syscall.Errno.
func receive(fd uintptr, p []byte) (int, error) { return call(syscall.SYS_RECVFROM, fd, p, 0) }

// peek is receive, which leaves the bytes where they are.
func peek(fd uintptr, p []byte) (int, error) {
	return call(syscall.SYS_RECVFROM, fd, p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
}

// ShortIsAll: a read of a connection that has not filled its buffer has taken all bytes that were there,
// and for what comes later the poller is told anew (epoll, edge-triggered).
const ShortIsAll = true

// send is send(2), else as receive.
func send(fd uintptr, p []byte) (int, error) {
	look()
	return call(syscall.SYS_SENDTO, fd, p, syscall.MSG_NOSIGNAL)
}

// maxWriteAt is the longest write to a file that is made so: into the page cache, which takes a
// while for many pages, and longer when the machine is short of clean ones.
const maxWriteAt = 64 << 10

// WriteAt is f.WriteAt; fd is f.Fd().
func WriteAt(f *os.File, fd uintptr, p []byte, off int64) (n int, err error) {
	if len(p) > maxWriteAt {
		return f.WriteAt(p, off)
	}
	for n < len(p) {
		m, err := call(syscall.SYS_PWRITE64, fd, p[n:], uintptr(off)+uintptr(n))
		if err != nil {
			return n, &os.PathError{Op: "write", Path: f.Name(), Err: err}
		}
		if m == 0 {
			return n, io.ErrShortWrite
		}
		n += m
	}
	return n, nil
}

func call(number, fd uintptr, p []byte, last uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), last, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
