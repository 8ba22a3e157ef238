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

// backPoll is how often a node looks whether a member that was away is back.
const backPoll = time.Second

// pause waits until the next pass is due. One that could not ask a member is not worth waiting for, once
// the member is there again: both have missed what the other did meanwhile. And one that found differences
// is worth another look soon: were they a moment's, or is a member still behind?
func (r *Repairer) pause(ctx context.Context) {
	pause := r.o.Pause
	if r.counters.Diverged.Load() > 0 {
		pause /= 3
	}
	for due := time.Now().Add(pause); ctx.Err() == nil && time.Now().Before(due); {
		select {
		case <-ctx.Done():
		case <-time.After(min(backPoll, time.Until(due))):
		case <-r.wake:
			sleep(ctx, min(settle, r.o.Pause))
			select {
			case <-r.wake: // the pass that follows is for these, too
			default:
			}
			return
		}
		for id := range r.away {
			if r.o.Peer(id).Healthy() {
				return
			}
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
