package peer

import (
	"errors"
	"sync"
	"time"

	"kai/node/clock"
	"kai/node/message"
)

var errSilent = errors.New("peer: no sign of life")

// upkeep keeps deadlines while calls wait, and the heartbeat always, until the link closes.
func (l *link) upkeep() {
	o := &l.c.opts
	timer := time.NewTimer(o.Heartbeat)
	defer timer.Stop()
	beat := int64(clock.Now())
	var late []uint64
	for {
		select {
		case <-l.out.done:
			return
		case <-l.wake:
		case <-timer.C:
		}
		now := int64(clock.Now())
		l.now.Store(now)
		if now-beat >= int64(o.Heartbeat) {
			beat = now
			l.ping(now)
		}
		silent := now - l.heard.Load()
		if silent > int64(o.Suspect) {
			l.c.healthy.Store(false)
		}
		if silent > int64(o.Dead) {
			l.fail(errSilent)
		}
		var waiting bool
		if late, waiting = l.sweep(late[:0], now); waiting {
			timer.Reset(o.Tick)
		} else {
			timer.Reset(o.Heartbeat)
		}
	}
}

// ping asks for a sign of life, unless there was one just now.
func (l *link) ping(now int64) {
	if now-l.heard.Load() < int64(l.c.opts.Heartbeat)/2 {
		return
	}
	o := &l.out
	o.mu.Lock()
	// A full queue is asked for enough already.
	if !o.closed && len(o.buf) < l.c.opts.MaxQueueBytes {
		l.pingAt.Store(now)
		o.buf = message.AppendControl(o.buf, typePing, l.pingID.Add(1), nil)
		o.frames++
	}
	o.mu.Unlock()
	o.flush()
}

// sweep answers calls whose time is up, pushes out what nobody flushed, and reports whether calls
// still wait.
func (l *link) sweep(late []uint64, now int64) ([]uint64, bool) {
	o := &l.out
	o.mu.Lock()
	late = l.slots.overdue(late, now)
	o.mu.Unlock()
	n := 0
	if len(late) > 0 {
		l.c.opts.BatchBegin()
		defer l.c.opts.BatchEnd()
	}
	for _, id := range late {
		s := l.slots.claim(id)
		if s == nil {
			continue // the reply came just now, or the link broke
		}
		var call message.Call
		s.claimed(&call)
		l.sample.CompareAndSwap(id, 0)
		late[n] = id
		n++
		l.c.count.timeouts.Add(1)
		answer(&call, message.TimedOut)
	}
	o.flush()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range late[:n] {
		l.slots.untake(id)
	}
	l.asleep = l.slots.pending() == 0
	return late, !l.asleep
}

// throttle lets one line of each kind through a minute.
type throttle struct {
	mu   sync.Mutex
	last map[string]time.Time
}

const maxKinds = 256

func (t *throttle) allow(kind string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if last, ok := t.last[kind]; ok && now.Sub(last) < time.Minute {
		return false
	}
	if t.last == nil || len(t.last) >= maxKinds {
		t.last = map[string]time.Time{}
	}
	t.last[kind] = now
	return true
}
