package store

import (
	"math/bits"
	"math/rand/v2"
)

// index maps 64-bit hashes to places, by open addressing with linear probing: a look-up touches one
// cache line, mostly, where Go's map touches three. It holds no pointers. Not safe for concurrent use.
type index[V ~uint32 | ~uint64] struct {
	slots []indexSlot[V] // length 0 or a power of two; at most 3/4 are used
	n     int
}

// indexSlot is free if next is 0; else it holds place next-1. Thus memory as it comes is an empty index.
type indexSlot[V ~uint32 | ~uint64] struct {
	hash uint64
	next V
}

const leastSlots = 16

// indexSeed is odd and differs from process to process, so that nobody can choose keys whose
// look-ups all begin at one slot.
var indexSeed = rand.Uint64() | 1

func (x *index[V]) start(hash uint64) int {
	hi, _ := bits.Mul64(hash*indexSeed, uint64(len(x.slots)))
	return int(hi)
}

func (x *index[V]) len() int { return x.n }

// find returns the slot of hash, or the free one where it belongs. There are slots.
func (x *index[V]) find(hash uint64) int {
	for i := x.start(hash); ; i = (i + 1) & (len(x.slots) - 1) {
		if s := &x.slots[i]; s.hash == hash || s.next == 0 {
			return i
		}
	}
}

func (x *index[V]) get(hash uint64) (V, bool) {
	if x.n == 0 {
		return 0, false
	}
	next := x.slots[x.find(hash)].next
	return next - 1, next != 0
}

// put sets the place of hash. The largest V is not a place.
func (x *index[V]) put(hash uint64, place V) {
	if 4*(x.n+1) > 3*len(x.slots) {
		x.resize(max(2*len(x.slots), leastSlots))
	}
	s := &x.slots[x.find(hash)]
	if s.next == 0 {
		x.n++
	}
	*s = indexSlot[V]{hash, place + 1}
}

func (x *index[V]) resize(n int) {
	old := x.slots
	x.slots = make([]indexSlot[V], n)
	for _, s := range old {
		if s.next != 0 {
			x.slots[x.find(s.hash)] = s
		}
	}
}

// drop removes hash, if it is there, and gives memory back when little of it is used.
func (x *index[V]) drop(hash uint64) {
	if x.n == 0 {
		return
	}
	hole := x.find(hash)
	if x.slots[hole].next == 0 {
		return
	}
	x.n--
	// Whatever a later look-up would not find behind the hole moves into it.
	mask := len(x.slots) - 1
	for i := (hole + 1) & mask; x.slots[i].next != 0; i = (i + 1) & mask {
		if home := x.start(x.slots[i].hash); (i-home)&mask >= (i-hole)&mask {
			x.slots[hole] = x.slots[i]
			hole = i
		}
	}
	x.slots[hole] = indexSlot[V]{}
	if len(x.slots) > leastSlots && 16*x.n < len(x.slots) {
		x.resize(len(x.slots) / 4)
	}
}
