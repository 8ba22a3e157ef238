//go:build amd64 || arm64

package store

import "unsafe"

// prefetch asks the processor to bring the cache line at addr nearer. It does not wait, and harms
// nothing whatever addr is.
//
//go:noescape
func prefetch(addr unsafe.Pointer)

// prefetchEntry is prefetch of what a small entry takes.
//
//go:noescape
func prefetchEntry(addr unsafe.Pointer)
