package store

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// mapPages maps at least size bytes that live as long as owner, or returns nil.
func mapPages(owner *arena, size int64) []byte {
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // else small pages, and slower
	runtime.AddCleanup(owner, func(mem []byte) { _ = unix.Munmap(mem) }, mem)
	return mem
}
