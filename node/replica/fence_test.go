package replica

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// A promise counts only once a restart would know of it.
func TestPromiseWaitsForTheFence(t *testing.T) {
	d := newDisk()
	d.hold = true
	r := newRig(t, d)
	none := record.Ballot{}
	promise := r.prepare(ballot(1))
	r.waits("promise", promise)
	d.release(nil)
	r.want("promise", promise, message.OK, none, nil)
	d.hold = false

	// Under the reservation there is nothing to wait for.
	d.hold = true
	r.want("promise under the fence", r.prepare(ballot(2)), message.OK, none, nil)

	// A ballot ahead of the clock needs its own.
	ahead := int(ticksOf(reserveAhead)) + 100
	far := r.prepare(ballot(ahead))
	r.waits("promise beyond the fence", far)
	d.release(nil)
	r.want("promise beyond the fence", far, message.OK, none, nil)
	if got := r.fence.durable.Load(); got < ballot(ahead).Stamp.Ticks() {
		t.Errorf("fence at %d, promised %d", got, ballot(ahead).Stamp.Ticks())
	}
}

func TestPromiseWithoutAFenceIsNone(t *testing.T) {
	r := newRig(t, newDisk())
	r.disk.hold = true
	ahead := int(ticksOf(reserveAhead)) + 100
	promise := r.prepare(ballot(ahead))
	r.disk.release(errDisk)
	r.want("promise", promise, message.TimedOut, record.Ballot{}, nil)
	if r.Healthy() {
		t.Error("votes on, with a fence that may not be there")
	}
	r = newRig(t, newDisk())
	r.disk.refuse = errFull
	r.want("promise, journal full", r.prepare(ballot(ahead)), message.Busy, record.Ballot{}, nil)
	r.want("accept, journal full", r.accept(ballot(ahead), record.Ballot{}, "v"), message.Busy, record.Ballot{}, nil)
	if !r.Healthy() {
		t.Error("a full journal cost the vote")
	}
}

// An accept promises too. Its fence is staged before its record, so that the log cannot hold the
// record and miss the fence.
func TestFenceGoesBeforeTheRecord(t *testing.T) {
	r := newRig(t, newDisk())
	r.disk.hold = true
	ahead := int(ticksOf(reserveAhead)) + 100
	a := r.accept(ballot(5), ballot(ahead), "v")
	if !r.disk.stagedBefore(fenceName, string(key)) {
		t.Errorf("staged %q", r.disk.order)
	}
	r.waits("accept", a)
	r.disk.release(nil)
	r.want("accept", a, message.OK, record.Ballot{}, nil)

	// A duplicate whose next ballot is beyond the fence waits for it.
	r.disk.hold = true
	again := r.accept(ballot(5), ballot(3*ahead), "v")
	r.waits("duplicate", again)
	r.disk.release(nil)
	r.want("duplicate", again, message.OK, record.Ballot{}, nil)
}

// A restart forgets the promises and takes them all to be the fence.
func TestRestartFloor(t *testing.T) {
	boot := ballot(0).Stamp.Ticks() + ticksOf(time.Second)
	at := func(delta int) record.Ballot { return ballot(int(ticksOf(time.Second)) + delta) }
	floor := record.Ballot{Epoch: 1, Stamp: record.NewStamp(boot, ^uint16(0))}
	d := newDisk().setFence(boot)
	d.records[string(key)] = encoded(at(-50), "old")
	r := newRig(t, d)
	none := record.Ballot{}
	r.want("prepare below", r.prepare(at(-1)), message.Nack, floor, nil)
	r.want("prepare at", r.prepare(at(0)), message.Nack, floor, nil)
	r.want("accept below", r.accept(at(-1), none, "v"), message.Nack, floor, nil)
	r.want("accept at", r.accept(at(0), none, "v"), message.Nack, floor, nil)
	r.want("duplicate of what is there", r.accept(at(-50), none, "old"), message.OK, none, nil)
	r.want("prepare above", r.prepare(at(1)), message.OK, at(-50), encoded(at(-50), "old"))
	r.want("accept above", r.accept(at(1), none, "new"), message.OK, none, nil)
	if s, err := r.fence.Next(0, 3); err != nil || s.Ticks() <= boot {
		t.Errorf("stamp %v after a restart at %v, %v", s.Ticks(), boot, err)
	}
	// The floor holds in later epochs as well: a promise may have been given in any.
	r.table.conf.Epoch = 2
	a := r.ask(message.Request{Kind: message.Prepare, Epoch: 2, Key: []byte("other key"), Ballot: ballotIn(2, 0)})
	r.want("in a later epoch", a, message.Nack, record.Ballot{Epoch: 2, Stamp: floor.Stamp}, nil)
}

// However often and quickly it restarts: what one life promised, no later one breaks.
func TestPromisesSurviveRestarts(t *testing.T) {
	d := newDisk()
	var promised record.Ballot
	for life := range 50 {
		r := newRig(t, d)
		r.now = begun.Add(time.Duration(life) * 10 * time.Millisecond)
		if life > 0 {
			a := r.accept(promised, record.Ballot{}, "v")
			if a.Reply.Status != message.Nack {
				t.Fatalf("life %d: accept at the promise of the last life, for another: %v", life, a.Reply.Status)
			}
		}
		s, err := r.fence.Next(0, 1)
		if err != nil {
			t.Fatal(err)
		}
		b := record.Ballot{Epoch: 1, Stamp: s}
		if !promised.Less(b) {
			t.Fatalf("life %d: stamp %v, not above %v", life, b, promised)
		}
		if a := r.prepare(b); a.Reply.Status != message.OK {
			t.Fatalf("life %d: %v", life, a.Reply.Status)
		}
		promised = record.Ballot{Epoch: 1, Stamp: record.NewStamp(s.Ticks(), s.Slot()+1)} // anyone else's, as high
		r.prepare(promised)
		if lead := r.fence.durable.Load() - record.Ticks(r.now); lead > ticksOf(2*reserveAhead) {
			t.Fatalf("life %d: restarts drove the fence %v ahead", life, time.Duration(lead)*record.Unit)
		}
	}
}

func TestStampsAreUniqueAndGrow(t *testing.T) {
	r := newRig(t, newDisk())
	const workers, each = 8, 2000
	all := make([][]record.Stamp, workers)
	var wg sync.WaitGroup
	for w := range all {
		wg.Go(func() {
			for range each {
				s, err := r.fence.Next(0, 7)
				if err != nil {
					t.Error(err)
					return
				}
				all[w] = append(all[w], s)
			}
		})
	}
	wg.Wait()
	seen := map[record.Stamp]bool{}
	for _, stamps := range all {
		if !slices.IsSorted(stamps) {
			t.Error("a worker's stamps do not grow")
		}
		for _, s := range stamps {
			if seen[s] || s.Slot() != 7 || s.Ticks() > r.fence.durable.Load() {
				t.Fatalf("stamp %x: again, or of another slot, or beyond the fence", uint64(s))
			}
			seen[s] = true
		}
	}
}

// TestBusyNodeStaysWithTheClock: more stamps than a clock of 8 µs has, as a restore into one node asks for, must not drive ballots so far
// ahead of the clock that they are refused.
func TestBusyNodeStaysWithTheClock(t *testing.T) {
	r := newRig(t, newDisk())
	const partitions = 64
	var newest record.Stamp
	for i := range ticksOf(MaxLead) + 1 { // within one instant
		s, err := r.fence.Next(ring.Partition(i%partitions), 1)
		if err != nil {
			t.Fatal(err)
		}
		newest = max(newest, s)
	}
	if lead := time.Duration(newest.Ticks()-record.Ticks(r.now)) * record.Unit; lead > MaxLead/partitions+time.Millisecond {
		t.Errorf("stamps are %v ahead of the clock", lead)
	}
}

func TestObserve(t *testing.T) {
	r := newRig(t, newDisk())
	r.fence.Observe(0, ballot(1000).Stamp)
	if s, _ := r.fence.Next(0, 0); s.Ticks() <= ballot(1000).Stamp.Ticks() {
		t.Errorf("stamp %d is not above what was observed", s.Ticks())
	}
	r.fence.Observe(0, ballot(500).Stamp) // older: no way back
	r.fence.Observe(0, ballot(int(ticksOf(MaxLead))+1).Stamp)
	if s, _ := r.fence.Next(0, 0); s.Ticks() > ballot(1100).Stamp.Ticks() {
		t.Errorf("stamp %d follows a clock that ran away", s.Ticks())
	}
}

// The clock may jump far ahead of the reservation, or the disk be slow: Next waits for the disk.
func TestNextWaitsForTheReservation(t *testing.T) {
	r := newRig(t, newDisk())
	r.now = begun.Add(time.Hour)
	r.disk.refuse = errFull
	if _, err := r.fence.Next(0, 0); !errors.Is(err, errNoStamp) {
		t.Errorf("error %v, want %v", err, errNoStamp)
	}
	r.disk.refuse, r.disk.hold = nil, true
	got := make(chan record.Stamp)
	go func() {
		s, _ := r.fence.Next(0, 0)
		got <- s
	}()
	for staged := 0; staged == 0; {
		r.disk.mu.Lock()
		staged = len(r.disk.staged)
		r.disk.mu.Unlock()
	}
	select {
	case s := <-got:
		t.Errorf("stamp %v before the fence is on disk", s)
	default:
	}
	r.disk.release(nil)
	if s := <-got; s.Ticks() < record.Ticks(r.now) || s.Ticks() > r.fence.durable.Load() {
		t.Errorf("stamp %d, fence %d", s.Ticks(), r.fence.durable.Load())
	}
}
