//go:build !linux

package rawio

import (
	"errors"
	"os"
	"syscall"
)

// receive is read(2). It is repeated when a signal interrupts it.
func receive(fd uintptr, p []byte) (n int, err error) {
	for {
		if n, err = syscall.Read(handle(fd), p); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// peek is not needed where ShortIsAll is false: it says that there is nothing.
func peek(uintptr, []byte) (int, error) { return 0, syscall.EAGAIN }

// ShortIsAll is not known here.
const ShortIsAll = false

// send is write(2), else as receive.
func send(fd uintptr, p []byte) (n int, err error) {
	for {
		if n, err = syscall.Write(handle(fd), p); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// WriteAt is f.WriteAt.
func WriteAt(f *os.File, _ uintptr, p []byte, off int64) (int, error) { return f.WriteAt(p, off) }

// WriteSync is not done here.
func WriteSync(uintptr, []byte, int64) error { return errors.ErrUnsupported }

func look() {}
