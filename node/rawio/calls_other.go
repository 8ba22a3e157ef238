//go:build !linux

package rawio

import (
	"os"
	"syscall"
)

// Read is read(2). It is repeated when a signal interrupts it.
func Read(fd uintptr, p []byte) (n int, err error) {
	for {
		if n, err = syscall.Read(handle(fd), p); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// Write is write(2), else as Read.
func Write(fd uintptr, p []byte) (n int, err error) {
	for {
		if n, err = syscall.Write(handle(fd), p); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// WriteAt is f.WriteAt.
func WriteAt(f *os.File, _ uintptr, p []byte, off int64) (int, error) { return f.WriteAt(p, off) }
