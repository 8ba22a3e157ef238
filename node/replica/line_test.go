package replica

import (
	"testing"
	"unsafe"
)

// What a write touches of a replica's tables is a cache line of each.
func TestLines(t *testing.T) {
	if n := unsafe.Sizeof(leaf{}); n != 64 {
		t.Errorf("a leaf has %d bytes", n)
	}
	if n := unsafe.Sizeof(stripe{}); n != 64 {
		t.Errorf("a stripe has %d bytes", n)
	}
}
