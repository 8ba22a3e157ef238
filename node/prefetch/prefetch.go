//go:build amd64 || arm64

// Package prefetch asks the processor to bring memory nearer that is about to be used. Most of what a mutation
// touches was last touched a while ago, and waits for memory one miss after the other; told beforehand, the
// misses of several are waited for together.
package prefetch

import "unsafe"

// Line brings the cache line at addr nearer. It does not wait, and harms nothing whatever addr is.
//
//go:noescape
func Line(addr unsafe.Pointer)

// Lines is Line for three lines: what a small record takes.
//
//go:noescape
func Lines(addr unsafe.Pointer)
