package store

import (
	"sync/atomic"
)

// chunk is a piece of the log in memory: log entries one behind the other, exactly as they are
// written to the disk. It is at once the write buffer and, until the table has its entries, the
// overlay: nothing is copied in between. Bytes below the published mark never change.
type chunk struct {
	id   uint32
	buf  []byte
	used int // appender only
	// published is how far its entries are committed and visible.
	published atomic.Int64
	// sealed: nothing will be added. Guarded by Store.liveMu, like end.
	sealed bool
	// end is the position behind the last published entry.
	end position
}

// ref names an entry in a chunk: id of the chunk, offset in it. Indexes hold refs, not pointers, so
// that the garbage collector has nothing to look at in them.
type ref uint64

func refOf(c *chunk, off int) ref { return ref(c.id)<<32 | ref(off) }
func (r ref) chunk() uint32       { return uint32(r >> 32) }

// window finds the chunks alive by id. Ids are given in order; the window has a slot for each chunk
// that can be alive at once.
type window []atomic.Pointer[chunk]

func newWindow(o Options) window {
	// A chunk is closed when the next entry does not fit; two neighbours together hold at least one
	// chunk's worth. So twice the bytes bounds the number, and the rest is slack.
	n := 2*(o.OverlayBytes+2*o.QueueBytes)/int64(o.chunkBytes) + 64
	size := 1
	for int64(size) < n {
		size *= 2
	}
	return make(window, size)
}

func (w window) slot(id uint32) *atomic.Pointer[chunk] { return &w[id&uint32(len(w)-1)] }

// at returns the entry of a ref that an index holds.
func (w window) at(r ref) entry {
	e, _ := entryAt(w.slot(r.chunk()).Load().buf[uint32(r):])
	return e
}
