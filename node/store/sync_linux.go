package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// fdatasync syncs content; segments never change their length, so there is no more to sync.
func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}
