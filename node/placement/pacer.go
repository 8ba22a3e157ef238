package placement

import (
	"context"
	"sync"
	"time"
)

// Pacer spreads what transfers send and take over, so that clients keep their latency: bytes leave a bucket that fills at a rate,
// and the rate follows what the clients of this node feel. One for all transfers of a node, both ways. Safe
// for concurrent use.
type Pacer struct {
	o    PacerOptions
	mu   sync.Mutex
	rate float64   // bytes a second
	free time.Time // when all that was taken so far has been paid for
	// calm is the clients' latency while nothing is transferred, busy since when something is.
	calm   time.Duration
	spent  time.Time // last
	silent int       // how often in a row clients were too few to tell
	early  bool      // clients were not yet strained since transfers began
}

// PacerOptions of NewPacer.
type PacerOptions struct {
	// Most is the highest rate, in bytes a second.
	Most int64
	// Latency is how long the slowest hundredth of the clients' reads took since the last call; ok=false: too few
	// to tell. nil for no clients.
	Latency func() (d time.Duration, ok bool)
}

const (
	// paceEvery is how often the rate is set anew.
	paceEvery = 250 * time.Millisecond
	// leastRate keeps transfers going, whatever clients feel.
	leastRate = 1 << 20
	// unknownRate is that of a node whose clients are too few to tell anything for unknownAfter looks.
	unknownRate, unknownAfter = 16 << 20, 12
	// firstRate is the rate that transfers begin with, while there are clients: it doubles in half a second or so
	// until they feel it.
	firstRate = 4 << 20
	// paceBurst is how much may be taken at once, in time at the present rate.
	paceBurst = 50 * time.Millisecond
	// maxPace bounds what one taker waits: the other side of a transfer waits, too.
	maxPace = 2 * time.Second
	// Clients are well while their latency is below calmly times that of calm times, and strained above badly times.
	calmly, badly = 1.5, 2.0
)

// NewPacer makes a pacer; it starts nothing.
func NewPacer(o PacerOptions) *Pacer {
	return &Pacer{o: o, rate: min(unknownRate, float64(o.Most))}
}

// PartitionCost is what beginning to transfer a partition is charged for, in bytes: two decisions among its members,
// and a dozen messages and syncs of all nodes. It is about what copying so much costs in processor time
// (node/placement/DESIGN.md).
const PartitionCost = 256 << 10

// Spend waits until n more bytes are within the rate, or ctx ends. A nil Pacer does not wait.
func (p *Pacer) Spend(ctx context.Context, n int) {
	wait := p.Charge(n)
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Charge is Spend without waiting: it returns how long that would have taken.
func (p *Pacer) Charge(n int) time.Duration {
	if p == nil {
		return 0
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spent = now
	if early := now.Add(-paceBurst); p.free.Before(early) {
		p.free = early
	}
	p.free = p.free.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
	return min(p.free.Sub(now), maxPace)
}

// Rate is the present rate, in bytes a second.
func (p *Pacer) Rate() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

// Run adapts the rate until ctx ends.
func (p *Pacer) Run(ctx context.Context) error {
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			var d time.Duration
			ok := false
			if p.o.Latency != nil {
				d, ok = p.o.Latency()
			}
			p.adapt(now, d, ok)
		}
	}
}

// adapt sets the rate by what clients felt lately: down fast, up slowly.
func (p *Pacer) adapt(now time.Time, d time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	most := float64(p.o.Most)
	if p.silent++; ok {
		p.silent = 0
	}
	idle := now.Sub(p.spent) > 2*paceEvery
	switch {
	case p.silent > unknownAfter:
		p.rate += (min(unknownRate, most) - p.rate) / 8
	case !ok: // soon
	case idle:
		if p.calm == 0 {
			p.calm = d
		}
		p.calm += (d - p.calm) / 16
		p.rate, p.early = firstRate, true
	case p.calm == 0: // it never was calm: somewhere between
	case float64(d) > badly*float64(p.calm):
		p.rate, p.early = max(p.rate*0.6, leastRate), false
	case float64(d) < calmly*float64(p.calm) && p.early:
		p.rate *= 1.4
	case float64(d) < calmly*float64(p.calm):
		p.rate *= 1.15
	}
	p.rate = max(min(p.rate, most), min(leastRate, most))
}
