package placement

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestPacerKeepsTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPacer(PacerOptions{Most: 4 << 20})
		began := time.Now()
		for range 64 {
			p.Spend(t.Context(), 256<<10) // 16 MiB in all
		}
		if took := time.Since(began); took < 3800*time.Millisecond || took > 4*time.Second {
			t.Errorf("16 MiB at 4 MiB/s took %s", took)
		}
		if p.Charge(1<<30) != maxPace {
			t.Error("a taker may wait for ever")
		}
	})
}

func TestPacerFollowsTheClients(t *testing.T) {
	latency, known := time.Millisecond, true
	p := NewPacer(PacerOptions{Most: 64 << 20})
	now := time.Unix(1000, 0)
	pass := func(n int, busy bool) float64 {
		for range n {
			now = now.Add(paceEvery)
			if busy {
				p.spent = now
			}
			p.adapt(now, latency, known)
		}
		return p.Rate()
	}
	pass(40, false)
	if r := pass(40, true); r != 64<<20 {
		t.Errorf("calm clients: %.0f", r)
	}
	latency = 5 * time.Millisecond
	if r := pass(4, true); r > 10<<20 {
		t.Errorf("a second after clients began to suffer: %.0f", r)
	}
	if r := pass(40, true); r != leastRate {
		t.Errorf("clients suffer on: %.0f", r)
	}
	latency = 1700 * time.Microsecond
	if r := pass(10, true); r != leastRate {
		t.Errorf("between well and strained it should stay: %.0f", r)
	}
	latency = time.Millisecond
	if r := pass(12, true); r < 4<<20 {
		t.Errorf("three seconds after clients are well again: %.0f", r)
	}
	if pass(3, false); p.Rate() != firstRate {
		t.Errorf("transfers begin at %.0f", p.Rate())
	}
	known = false
	if r := pass(unknownAfter, true); r != firstRate {
		t.Errorf("nobody to ask for a moment: %.0f", r)
	}
	if r := pass(80, true); r < 0.9*unknownRate || r > 1.1*unknownRate {
		t.Errorf("nobody to ask: %.0f", r)
	}
	var none *Pacer
	none.Spend(t.Context(), 1<<30)
}
