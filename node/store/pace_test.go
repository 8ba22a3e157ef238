package store

import (
	"testing"
	"time"
)

// TestPacer feeds the pacer syncs and asks how long the next batch would wait.
func TestPacer(t *testing.T) {
	const ms = time.Millisecond
	feed := func(p *pacer, now time.Time, n int, d time.Duration, entries int) time.Time {
		for range n {
			now = now.Add(d)
			p.synced(now, d, entries)
		}
		return now
	}
	now := time.Unix(1, 0)
	var p pacer
	if d := p.wait(now, false); d > 0 {
		t.Errorf("before the first sync: waits %v", d)
	}
	now = feed(&p, now, 100, ms/4, 4)
	if d := p.wait(now, false); d > 0 {
		t.Errorf("syncs as fast as they can be: waits %v", d)
	}
	now = feed(&p, now, 100, ms, 4)
	if d := p.wait(now, false); d != maxPace {
		t.Errorf("syncs that queue, few entries: waits %v, want five syncs, at most %v", d, maxPace)
	}
	if d := p.wait(now.Add(5*ms), false); d > 0 {
		t.Errorf("long after the last sync: waits %v", d)
	}
	slow := p
	if end := feed(&slow, now, 100, 100*ms, 4); slow.wait(end, false) > maxPace {
		t.Errorf("slow syncs: waits %v", slow.wait(end, false))
	}
	middling := p
	if end := feed(&middling, now, 100, ms*3/4, 12); middling.wait(end, false) < 5*ms/2 || middling.wait(end, false) > 11*ms/4 {
		t.Errorf("neither few nor many entries: waits %v, want three and a half syncs", middling.wait(end, false))
	}
	full := p
	end := feed(&full, now, 100, ms, 40)
	if d := full.wait(end, false); d < ms*19/10 || d > 2*ms {
		t.Errorf("full batches: waits %v, want two syncs", d)
	}
	if d := full.wait(end, true); d > 0 {
		t.Errorf("full batches, alone: waits %v", d)
	}
	if end := feed(&full, end, 100, ms, 80); full.wait(end, false) > 0 {
		t.Errorf("more would only wait longer: waits %v", full.wait(end, false))
	}
	lone := p
	if end := feed(&lone, now, 100, ms, 1); lone.wait(end, false) > 0 {
		t.Errorf("a lone writer: waits %v", lone.wait(end, false))
	}
	now = feed(&p, now, 100, ms/4, 4)
	if d := p.wait(now, false); d > 0 {
		t.Errorf("the queue is gone: waits %v", d)
	}
	// A disk that has become slow for good is not a queue: the floor follows.
	now = feed(&p, now, 2000, ms, 4)
	if d := p.wait(now, false); d > 0 {
		t.Errorf("a slower disk: still waits %v", d)
	}
}
