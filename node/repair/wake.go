package repair

import (
	"context"
	"time"
)

// settle is the time from a Wake to the pass it asks for, and thereby between two passes that are asked for: hints are
// handed off first, which is quicker, and who comes back with several peers is compared once.
const settle = 3 * time.Second

// Wake has the next pass begin soon: a peer is back, or this node was away. It does not block.
func (r *Repairer) Wake() { poke(r.wake) }

// pause is the time between two passes.
func (r *Repairer) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(r.o.Pause):
	case <-r.wake:
		sleep(ctx, min(settle, r.o.Pause))
		select {
		case <-r.wake: // the pass that follows is for these, too
		default:
		}
	}
}

// poke puts a token into a channel of capacity 1, unless there is one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
