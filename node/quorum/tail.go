package quorum

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// tail counts how long gets took, in steps of a quarter of a doubling from 1 µs on.
type tail struct {
	counts [tailSteps]atomic.Uint64
	seen   [tailSteps]uint64 // by Tail's last call
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

// Tail is how long the slowest hundredth of the gets of this node's clients took, at least, since the last call;
// ok=false: too few. For one goroutine.
func (c *Coordinator) Tail() (d time.Duration, ok bool) {
	var fresh [tailSteps]uint64
	sum := uint64(0)
	t := &c.tail
	for i := range fresh {
		n := t.counts[i].Load()
		fresh[i] = n - t.seen[i]
		sum += fresh[i]
	}
	if sum < leastTail {
		return 0, false // they count next time
	}
	for i := range fresh {
		t.seen[i] += fresh[i]
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
