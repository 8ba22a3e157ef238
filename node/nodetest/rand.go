// Package nodetest runs whole clusters in one process, under testing/synctest: the real coordinator,
// replica, codec and store over a simulated network, clock and disk. Tests only. Every random choice
// is a pure function of the seed and of what is decided (a link and the number of its message, say),
// so that a history does not depend on how goroutines happen to be scheduled.
package nodetest

import "time"

// mix is a chain of splitmix64 steps (Steele, Lea, Flood 2014): a hash of its arguments.
func mix(xs ...uint64) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, x := range xs {
		h += x + 0x9e3779b97f4a7c15
		h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9
		h = (h ^ (h >> 27)) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return h
}

// rng is a stream of random numbers that belongs to one goroutine.
type rng struct{ seed, n uint64 }

func (r *rng) next() uint64        { r.n++; return mix(r.seed, r.n) }
func (r *rng) intn(n int) int      { return int(r.next() % uint64(n)) }
func (r *rng) chance(pct int) bool { return r.intn(100) < pct }

// between is a duration in [lo, hi), with all its nanoseconds: two events hardly ever coincide.
func (r *rng) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.next()%uint64(hi-lo))
}
