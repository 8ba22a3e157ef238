package placement

import (
	"context"
	"sync/atomic"
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
			p.adapt(now, latency, known, 0)
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

// Who is served is what counts: clients of other nodes read here, too.
func TestPacerOfAnUnusedNode(t *testing.T) {
	served, now := uint64(0), time.Unix(1000, 0)
	p := NewPacer(PacerOptions{Most: 1 << 30, Served: func() uint64 { return served }})
	pass := func(n int, each uint64) float64 {
		for range n {
			now, served = now.Add(paceEvery), served+each
			p.spent = now
			p.adapt(now, 0, false, served)
		}
		return p.Rate()
	}
	if r := pass(100, 20); r > 1.1*unknownRate {
		t.Errorf("clients of others: %.0f", r)
	}
	if r := pass(100, 1); r < 0.9*(1<<30) {
		t.Errorf("nobody: %.0f", r)
	}
	if r := pass(60, 20); r > 1.1*unknownRate {
		t.Errorf("clients are back: %.0f", r)
	}
}

// Work that goes on for hours rests now and then, and learns what clients feel without it.
func TestPacerRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var own, spent atomic.Int64 // what clients feel without this work; when it was at work last, since began
		own.Store(int64(time.Millisecond))
		p := NewPacer(PacerOptions{Most: 64 << 20, Least: 2 << 20})
		p.o.Latency = func() (time.Duration, bool) {
			d := time.Duration(own.Load())
			if p.Rate() > 8<<20 && time.Since(began)-time.Duration(spent.Load()) < paceEvery {
				d *= 3
			}
			return d, true
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = p.Run(ctx) }()
		time.Sleep(10 * time.Second)
		work := func(d time.Duration) (rate float64, longest time.Duration) {
			bytes, from := 0, time.Now()
			for time.Since(from) < d {
				before := time.Now()
				p.Spend(ctx, 64<<10)
				spent.Store(int64(time.Since(began)))
				longest, bytes = max(longest, time.Since(before)), bytes+64<<10
			}
			return float64(bytes) / d.Seconds(), longest
		}
		if rate, longest := work(59 * time.Second); rate < 4<<20 || rate > 10<<20 || longest > time.Second {
			t.Errorf("in the first minute: %.0f bytes a second, waits of up to %s", rate, longest)
		}
		if rate, longest := work(time.Minute); rate < 4<<20 || rate > 10<<20 || longest < restFor/2 || longest > maxPace {
			t.Errorf("with a rest: %.0f bytes a second, waits of up to %s", rate, longest)
		}
		own.Store(int64(4 * time.Millisecond)) // a new day
		work(2 * time.Second)
		if p.Rate() != 2<<20 {
			t.Errorf("when clients feel more for another reason: %.0f", p.Rate())
		}
		work(2 * time.Minute)
		if rate, _ := work(time.Minute); rate < 4<<20 {
			t.Errorf("two minutes after: %.0f bytes a second", rate)
		}
		cancel()
		synctest.Wait()
	})
}

func TestPacerOfTheGentle(t *testing.T) {
	now, latency := time.Unix(1000, 0), time.Millisecond
	p := NewPacer(PacerOptions{Most: 64 << 20, Well: 1.25, Strained: 1.5})
	pass := func(n int, busy bool) float64 {
		for range n {
			if now = now.Add(paceEvery); busy {
				p.spent = now
			}
			p.adapt(now, latency, true, 0)
		}
		return p.Rate()
	}
	pass(40, false)
	latency = 1300 * time.Microsecond
	if r := pass(8, true); r != firstRate {
		t.Errorf("between well and strained it should stay: %.0f", r)
	}
	latency = 1600 * time.Microsecond
	if r := pass(8, true); r != leastRate {
		t.Errorf("strained: %.0f", r)
	}
}

// While somebody is served there is a limit, however well clients are; without, there is none.
func TestPacerOfTheBusy(t *testing.T) {
	now, served := time.Unix(1000, 0), uint64(0)
	p := NewPacer(PacerOptions{Most: 64 << 20, Served: func() uint64 { return served }})
	p.SetRates(1<<20, 3<<20)
	pass := func(n int, requests uint64) float64 {
		for range n {
			now, served = now.Add(paceEvery), served+requests
			p.spent = now
			p.adapt(now, time.Millisecond, requests > 0, served)
		}
		return p.Rate()
	}
	if r := pass(40, 100); r != 3<<20 {
		t.Errorf("served: %.0f", r)
	}
	if r := pass(80, 0); r < 60<<20 {
		t.Errorf("unused: %.0f", r)
	}
	if r := pass(1, 100); r != 3<<20 {
		t.Errorf("served again: %.0f", r)
	}
	p.SetRates(5<<20, 3<<20)
	if r := pass(1, 100); r != 5<<20 {
		t.Errorf("at least more than that: %.0f", r)
	}
}

// Few clients tell seldom: what they tell in a rest is of the work before, too, and no calm.
func TestPacerOfFewClients(t *testing.T) {
	now := time.Unix(1000, 0)
	p := NewPacer(PacerOptions{Most: 64 << 20})
	for i := range 40 {
		now = now.Add(paceEvery)
		p.adapt(now, time.Millisecond, i%4 == 0, 0)
	}
	calm := p.calm
	for i := range 4 * 60 * 30 {
		if now = now.Add(paceEvery); now.After(p.rest) {
			p.spent = now
		}
		p.adapt(now, 1700*time.Microsecond, i%8 == 0, 0) // every two seconds
	}
	if p.calm != calm {
		t.Errorf("calm was %s, and is %s after half an hour of work", calm, p.calm)
	}
}
