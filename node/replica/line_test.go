package replica

import (
	"testing"
	"unsafe"

	"kai/node/message"
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

// A stripe keeps its pending keys apart, however many it has.
func TestStripe(t *testing.T) {
	var st stripe
	for round := range 3 {
		for hash := range uint64(5) {
			st.staged(hash, ballot(int(hash)))
			st.staged(hash, ballot(10+int(hash)))
			if !st.pending(hash).park(&message.Call{Index: int(hash)}) {
				t.Fatal("not parked")
			}
		}
		for i := range uint64(5) {
			hash := (i*3 + uint64(round)) % 5
			if p := st.pending(hash); p.newest != ballot(10+int(hash)) || p.writes != 2 {
				t.Fatalf("%+v", *p)
			}
			if w := st.ended(hash); w != nil || st.pending(hash) == nil {
				t.Fatal("ended too soon")
			}
			if w := st.ended(hash); len(w) != 1 || w[0].Index != int(hash) || st.pending(hash) != nil {
				t.Fatalf("%d waited", len(w))
			}
		}
	}
}
