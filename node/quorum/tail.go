package quorum

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// tail counts how long gets took, in steps of a quarter of a doubling from 1 µs on.
type tail struct {
	counts [tailSteps]atomic.Uint64
}

const (
	tailSteps = 4 * 26 // to a minute
	// leastTail is how many counts can tell something of their slowest hundredth.
	leastTail = 100
)

func tailStep(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 1))
	n := bits.Len64(us) - 1
	quarter := 0
	if n >= 2 { // below 4 µs there are no quarters
		quarter = int(us>>(n-2)) & 3
	}
	return min(4*n+quarter, tailSteps-1)
}

// Tail returns a function that tells how long the slowest hundredth of the gets of this node's clients took, at least, since its last call;
// ok=false: too few. It is for one goroutine; each call of Tail returns another.
func (c *Coordinator) Tail() func() (d time.Duration, ok bool) {
	var seen [tailSteps]uint64
	return func() (d time.Duration, ok bool) { return c.tail.since(&seen) }
}

// since tells of what was counted since seen, which it brings up to now unless that was too little.
func (t *tail) since(seen *[tailSteps]uint64) (d time.Duration, ok bool) {
	var fresh [tailSteps]uint64
	sum := uint64(0)
	for i := range fresh {
		fresh[i] = t.counts[i].Load() - seen[i]
		sum += fresh[i]
	}
	if sum < leastTail {
		return 0, false // they count next time
	}
	for i := range seen {
		seen[i] += fresh[i]
	}
	over := sum / 100
	for i := tailSteps - 1; i >= 0; i-- {
		if fresh[i] > over {
			base := time.Microsecond << (i / 4)
			return base + base*time.Duration(i%4)/4, true
		}
		over -= fresh[i]
	}
	return 0, false
}
