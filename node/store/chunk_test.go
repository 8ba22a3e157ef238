package store

import (
	"bytes"
	"testing"
)

// The memory of a chunk serves the next one when nobody looks at it any more, not earlier.
func TestChunksAreReused(t *testing.T) {
	p := &chunks{arena: newArena(0), size: 1024}
	a := p.get(1, 100)
	copy(a.buf, "first")
	reader := a.hold()
	a.release()
	if b := p.get(2, 100); &b.buf[0] == &a.buf[0] {
		t.Fatal("given away under a reader")
	}
	if !bytes.HasPrefix(reader.buf, []byte("first")) {
		t.Fatal("changed under a reader")
	}
	reader.release()
	if b := p.get(3, 100); &b.buf[0] != &a.buf[0] {
		t.Fatal("not used again")
	}
	large := p.get(4, 5000)
	if len(large.buf) != 5000 {
		t.Fatal(len(large.buf))
	}
	if large.release(); len(p.free) != 0 {
		t.Fatal("a large one is kept")
	}
}

func TestArena(t *testing.T) {
	for _, size := range []int64{0, 2 * leastArena} {
		a := newArena(size)
		const n = 1 << 20
		var all [][]byte
		for range 2*leastArena/n + 3 { // more than it has
			b := a.alloc(n)
			if len(b) != n || cap(b) != n || bytes.ContainsFunc(b, func(r rune) bool { return r != 0 }) {
				t.Fatalf("%d bytes, %d", len(b), cap(b))
			}
			for i := range b {
				b[i] = byte(len(all) + 1)
			}
			all = append(all, b)
		}
		for i, b := range all {
			if b[0] != byte(i+1) || b[n-1] != byte(i+1) {
				t.Fatalf("piece %d is another's too", i)
			}
		}
	}
}

// A scan sees what it began with, though its chunks are applied and their memory is wanted.
func TestScanHoldsChunks(t *testing.T) {
	opts := small(Options{Disk: NewMemDisk(MemDiskOptions{}), Table: NewMemTable(), CacheBytes: 1 << 20})
	s, _ := running(t, opts)
	put(t, s, "key", 7, 100)
	p, _ := place([]byte("key"))
	rows, release := s.overlayOf(p, nil)
	if len(rows) != 1 || string(rows[0].Key) != "key" {
		t.Fatalf("%d rows", len(rows))
	}
	before := bytes.Clone(rows[0].Value)
	for i := 0; s.Stats().Applied < 200; i++ {
		put(t, s, "fill", uint64(i+1), 900)
		put(t, s, string(rune('a'+i%26))+"x", uint64(i+1), 900)
	}
	if !bytes.Equal(rows[0].Value, before) {
		t.Fatal("changed under the scan")
	}
	release()
}
