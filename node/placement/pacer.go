package placement

import (
	"context"
	"sync"
	"time"
)

// Pacer spreads work over time, so that clients keep their latency: bytes leave a bucket that fills at a rate,
// and the rate follows what the clients of this node feel. One is for all transfers of a node, both ways, another
// for its snapshots. Safe for concurrent use.
type Pacer struct {
	o    PacerOptions
	mu   sync.Mutex
	rate float64   // bytes a second
	free time.Time // when all that was taken so far has been paid for
	// calm is the clients' latency while nothing is spent.
	calm   time.Duration
	spent  time.Time // last
	heard  time.Time // when clients told last: what they tell next is of the time since
	silent int       // how often in a row clients were too few to tell
	early  bool      // clients were not yet strained since this work began
	busy   time.Time // when nothing was spent last, for a while
	rest   time.Time // until when nothing is
	served uint64    // Options.Served's last answer
	unused int       // how often in a row next to nothing was served
}

// PacerOptions of NewPacer.
type PacerOptions struct {
	// Most is the highest rate, Least the lowest, in bytes a second; Least is 1 MiB if it is 0. While anybody is served, Busy is the highest, if it is
	// not 0 and more than Least.
	Most, Least, Busy int64
	// Clients are well while their latency is below Well times that of calm times, and strained above Strained times; 0: 1.5 and 2.
	Well, Strained float64
	// Latency is how long the slowest hundredth of the clients' reads took since the last call; ok=false: too few
	// to tell. nil for no clients.
	Latency func() (d time.Duration, ok bool)
	// Served is how many requests of whatever client this node has served, for others, too; while that stands still nobody minds the highest rate. nil: nobody knows.
	Served func() uint64
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
	// restEvery is after how long without a pause there is one, of restFor: calm times are not what they were an hour ago. Were
	// there none, work that takes hours would crawl as soon as the clients' own doing takes longer than when it began.
	restEvery, restFor = time.Minute, maxPace
	// unusedBelow is how many requests in paceEvery are next to nothing.
	unusedBelow = 3
)

// NewPacer makes a pacer; it starts nothing.
func NewPacer(o PacerOptions) *Pacer {
	if o.Least == 0 {
		o.Least = leastRate
	}
	if o.Well == 0 {
		o.Well, o.Strained = 1.5, 2
	}
	return &Pacer{o: o, rate: min(unknownRate, float64(o.Most)), busy: time.Now()}
}

// SetRates sets PacerOptions.Least and Busy.
func (p *Pacer) SetRates(least, busy int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Least, p.o.Busy = least, busy
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
	if p.free.Before(p.rest) {
		p.free = p.rest
	}
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
			var served uint64
			if p.o.Served != nil {
				served = p.o.Served()
			}
			p.adapt(now, d, ok, served)
		}
	}
}

// adapt sets the rate by what clients felt lately: down fast, up slowly.
func (p *Pacer) adapt(now time.Time, d time.Duration, ok bool, served uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	most, least := float64(p.o.Most), float64(p.o.Least)
	if p.unused++; p.o.Served == nil || served-p.served >= unusedBelow {
		p.unused = 0
	}
	p.served = served
	since := p.heard // what d is of
	if p.silent++; ok {
		p.silent, p.heard = 0, now
	}
	idle, resting := now.Sub(p.spent) > 2*paceEvery, now.Before(p.rest)
	switch {
	case idle && !resting:
		p.busy = now
	case !idle && now.Sub(p.busy) > restEvery:
		p.rest = now.Add(restFor)
		p.busy = p.rest
	}
	switch {
	case p.unused > unknownAfter:
		p.rate += (most - p.rate) / 8
	case p.silent > unknownAfter:
		p.rate += (min(unknownRate, most) - p.rate) / 8
	case !ok: // soon
	case idle:
		share := time.Duration(16)
		if resting { // for a moment only: a new day is to be noticed within minutes
			share = 4
		} else {
			p.rate, p.early = firstRate, true
		}
		if p.calm == 0 {
			p.calm = d
		}
		if since.After(p.spent) {
			p.calm += (d - p.calm) / share
		}
	case p.calm == 0: // it never was calm: somewhere between
	case float64(d) > p.o.Strained*float64(p.calm):
		p.rate, p.early = p.rate*0.6, false
	case float64(d) < p.o.Well*float64(p.calm) && p.early:
		p.rate *= 1.4
	case float64(d) < p.o.Well*float64(p.calm):
		p.rate *= 1.15
	}
	if p.o.Busy > 0 && p.unused <= unknownAfter {
		most = min(most, max(float64(p.o.Busy), least))
	}
	p.rate = max(min(p.rate, most), min(least, most))
}
