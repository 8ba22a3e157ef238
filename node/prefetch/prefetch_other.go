//go:build !amd64 && !arm64

// Package prefetch does nothing on this processor.
package prefetch

import "unsafe"

func Line(unsafe.Pointer)  {}
func Lines(unsafe.Pointer) {}
