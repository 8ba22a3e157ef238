package memcache

import (
	"sync"

	"kai/node/record"
)

const (
	// baseBuffer is the read buffer of an active connection.
	baseBuffer = 16 << 10
	// growth is the factor by which a full read buffer grows: a client has sent at least 1/growth of
	// what is held for it.
	growth = 8
	// flushAt is the length of the reply buffer at which it is written out.
	flushAt = 64 << 10
	// maxBatch bounds the operations of one Execute.
	maxBatch = 128
	// direct is the value length from which a reply is written from the Store's memory without being
	// copied into the reply buffer.
	direct = 32 << 10
)

// work is what a connection needs only while it is busy: buffers and one batch. It comes from the
// server's pool when bytes arrive, and goes back when the connection waits with nothing pending.
type work struct {
	base    [baseBuffer]byte
	in      []byte // base, or a grown buffer
	r, w    int    // in[r:w] is read but not consumed
	out     []byte
	entries []entry
	// ops and results grow with the batches that are seen, to maxBatch.
	ops     []record.Op
	results []record.Result
	words   [maxWords][]byte
}

// bufferPool recycles work and grown read buffers.
type bufferPool struct {
	works sync.Pool
	grown [8]sync.Pool // by class: baseBuffer·growth^(class+1), the last one capped to max
	max   int          // the longest a request can be
}

func (p *bufferPool) get() *work {
	w, _ := p.works.Get().(*work)
	if w == nil {
		w = &work{}
	}
	w.in = w.base[:]
	return w
}

func (p *bufferPool) put(w *work) {
	p.release(w.in)
	w.in, w.r, w.w = nil, 0, 0
	clear(w.words[:]) // they may point into a grown buffer
	if cap(w.out) > 2*flushAt {
		w.out = nil
	}
	w.out = w.out[:0]
	p.works.Put(w)
}

func (p *bufferPool) release(b []byte) {
	size := baseBuffer
	for class := range p.grown {
		if size = p.next(size); len(b) == size {
			full := b // a copy, so that the parameter itself stays off the heap
			p.grown[class].Put(&full)
			return
		}
	}
}

func (p *bufferPool) next(size int) int {
	if size >= p.max {
		return 0
	}
	return min(size*growth, p.max)
}

// room makes space for at least one more byte behind w.w: it moves what is pending to the front,
// and takes the next larger buffer when that is not enough. It fails when in has reached its limit.
func (p *bufferPool) room(w *work) bool {
	switch {
	case w.r == w.w:
		w.r, w.w = 0, 0
	case w.w == len(w.in) && w.r > 0:
		w.w = copy(w.in, w.in[w.r:w.w])
		w.r = 0
	}
	if w.w < len(w.in) {
		return true
	}
	size := baseBuffer
	for class := range p.grown {
		from := size
		if size = p.next(size); size == 0 {
			return false
		}
		if from < len(w.in) {
			continue
		}
		b, _ := p.grown[class].Get().(*[]byte)
		if b == nil {
			m := make([]byte, size)
			b = &m
		}
		copy(*b, w.in)
		p.release(w.in)
		w.in = *b
		return true
	}
	return false
}
