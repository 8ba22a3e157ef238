package store

import (
	"sync"
	"sync/atomic"
)

// chunk is a piece of the log in memory: log entries one behind the other, exactly as they are
// written to the disk. It is at once the write buffer and, until the table has its entries, the
// overlay: nothing is copied in between. Bytes below the published mark do not change until the last
// reference is gone; then the memory serves the next chunk.
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

	// refs counts the overlay and those who read without a lock. They take their reference while the
	// overlay holds its own: under the lock of a shard that refers to the chunk, or under liveMu.
	refs atomic.Int32
	dir  atomic.Pointer[directory] // see Store.Scan
	home *chunks
}

func (c *chunk) hold() *chunk {
	c.refs.Add(1)
	return c
}

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		c.home.put(c.buf)
	}
}

// chunks is the memory of chunks that are no more.
type chunks struct {
	arena *arena
	size  int // of the buffers kept
	mu    sync.Mutex
	free  [][]byte
}

// get returns a chunk with room for n bytes and one reference. Its bytes are what they are.
func (p *chunks) get(id uint32, n int) *chunk {
	c := &chunk{id: id, home: p}
	c.refs.Store(1)
	if n > p.size {
		c.buf = make([]byte, n)
		return c
	}
	p.mu.Lock()
	if last := len(p.free) - 1; last >= 0 {
		c.buf, p.free = p.free[last], p.free[:last]
	}
	p.mu.Unlock()
	if c.buf == nil {
		c.buf = p.arena.alloc(p.size)
	}
	return c
}

// put keeps the memory for the next chunk; that of a large one is the garbage collector's.
func (p *chunks) put(buf []byte) {
	if len(buf) == p.size {
		p.mu.Lock()
		p.free = append(p.free, buf)
		p.mu.Unlock()
	}
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
