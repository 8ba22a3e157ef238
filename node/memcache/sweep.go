package memcache

import (
	"context"
	"sync/atomic"
	"time"

	"kai/node/rawio"
)

const (
	// lookEvery is the interval of sweeps.
	lookEvery = 250 * time.Millisecond
	// trustAfter is how many reads a connection looks for its client's end itself. A client that sends
	// all it has and ends (printf | nc) is answered at once; one that goes on is one that stays.
	trustAfter = 16
)

// trust counts the waits that a connection began without a look at whether its client has left: that
// would cost one more system call for each request. A sweep looks for it, if the wait turns out long.
type trust struct {
	reads uint32
	waits atomic.Uint64
	// The sweep's own: the waits that it saw last, and those behind the last of which it looked.
	saw, looked uint64
}

// wait reports that a connection may wait without a look, and counts that.
func (t *trust) wait() bool {
	if t.reads < trustAfter {
		t.reads++
		return false
	}
	t.waits.Add(1)
	return true
}

// overdue reports that the wait which the last sweep saw is not over, and that nobody has looked yet.
func (t *trust) overdue() bool {
	n := t.waits.Load()
	if n == t.looked {
		return false
	}
	if n != t.saw {
		t.saw = n
		return false
	}
	t.looked = n
	return true
}

// sweep ends connections whose clients left unseen, until ctx ends. One that is not waiting at all when
// it is looked at may be taken for one that is; its client is gone in either case.
func (l *listening) sweep(ctx context.Context) {
	if !rawio.ShortIsAll {
		return
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			l.each(func(c *conn) {
				if c.trust.overdue() && c.source.Over() {
					c.nc.SetReadDeadline(time.Unix(1, 0))
				}
			})
		}
	}
}
