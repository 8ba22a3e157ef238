package store

import "sync"

// arena hands out memory for the cache and for chunks, in pages as large as the operating system
// has: a look-up goes to a random place in hundreds of megabytes, and finding its page costs as much
// as reading it. What it hands out is not the garbage collector's, and stays in the store's hands
// until the store is gone.
type arena struct {
	mu  sync.Mutex
	mem []byte // mapped, touched from its beginning on
	off int
}

// leastArena is below what a map of its own is worth.
const leastArena = 8 << 20

// newArena reserves size bytes, which take memory only as they are used. An arena may turn out to
// have none: then alloc falls back on the heap.
func newArena(size int64) *arena {
	a := &arena{}
	if size >= leastArena {
		a.mem = mapPages(a, size)
	}
	return a
}

// alloc returns n zero bytes.
func (a *arena) alloc(n int) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n > len(a.mem)-a.off {
		return make([]byte, n)
	}
	b := a.mem[a.off : a.off+n : a.off+n]
	a.off += n
	return b
}
