package replica

import (
	"errors"
	"testing"
	"time"

	"kai/node/record"
)

// One write reserves for seconds, and the next one comes before anybody has to wait.
func TestReservationsAreFewAndEarly(t *testing.T) {
	r := newRig(t, newDisk())
	stamps := 0
	for at := time.Duration(0); at < 10*time.Second; at += time.Millisecond {
		r.now = begun.Add(at)
		r.disk.hold = true // who had to wait now would wait for ever
		s, err := r.fence.Next(0, 0)
		if err != nil || s.Ticks() > r.fence.durable.Load() {
			t.Fatal(s, err)
		}
		r.disk.hold = false
		r.disk.release(nil)
		stamps++
	}
	if n := len(r.disk.order); n < 5 || n > 12 {
		t.Errorf("%d reservations in 10 s", n)
	}
}

// A store may refuse and then commit within PutMeta: who asked must hear either way.
func TestWaiterOfAStoreThatAnswersAtOnce(t *testing.T) {
	r := newRig(t, newDisk())
	ticks := ballot(int(ticksOf(reserveAhead)) + 100).Stamp.Ticks()
	j := &flaky{disk: r.disk, refusals: 1}
	r.fence.journal = j
	heard := 0
	r.fence.When(ticks, func(err error) {
		heard++
		if err != nil {
			t.Error(err)
		}
	})
	if heard != 1 || !r.fence.Covers(ticks) {
		t.Errorf("heard %d times; waiting %d", heard, len(r.fence.waiting))
	}
}

type flaky struct {
	*disk
	refusals int
}

func (f *flaky) PutMeta(name string, value []byte, done interface{ Committed(error) }) {
	if f.refusals > 0 {
		f.refusals--
		done.Committed(errFull)
		return
	}
	f.disk.PutMeta(name, value, done)
}

// Waiters hear of the reservation that covers them, and of its failure.
func TestWhen(t *testing.T) {
	r := newRig(t, newDisk())
	r.disk.hold = true
	base := int(ticksOf(reserveAhead))
	near, far := ballot(base+100).Stamp.Ticks(), ballot(3*base).Stamp.Ticks()
	var heard []string
	hear := func(name string) func(error) {
		return func(err error) {
			if err != nil {
				name += " " + err.Error()
			}
			heard = append(heard, name)
		}
	}
	r.fence.When(near, hear("near"))
	if !r.fence.Staged(near) || r.fence.Covers(near) {
		t.Error("staged is not durable")
	}
	first := r.disk.staged
	r.disk.staged = nil
	r.fence.When(far, hear("far"))
	first[0].done.Committed(nil)
	if len(heard) != 1 || heard[0] != "near" {
		t.Fatalf("heard %q", heard)
	}
	r.disk.release(errDisk)
	if len(heard) != 2 || heard[1] != "far "+errDisk.Error() {
		t.Fatalf("heard %q", heard)
	}
	if r.fence.durable.Load() >= far || r.fence.staged >= far {
		t.Error("a failed reservation counts")
	}
	r.disk.hold = false
	r.fence.When(far, hear("again"))
	if len(heard) != 3 || heard[2] != "again" {
		t.Errorf("heard %q", heard)
	}
}

func TestOpenFence(t *testing.T) {
	now := func() time.Time { return begun }
	if f, err := OpenFence(newDisk(), now); err != nil || f.Boot() != 0 {
		t.Errorf("fresh: %v", err)
	}
	if f, err := OpenFence(newDisk().setFence(77), now); err != nil || f.Boot() != 77 {
		t.Errorf("found: %v", err)
	}
	damaged := newDisk()
	damaged.metas[fenceName] = []byte("short")
	if _, err := OpenFence(damaged, now); !errors.Is(err, record.ErrCorrupt) {
		t.Errorf("damaged: %v", err)
	}
	broken := newDisk()
	broken.broken = errDisk
	if _, err := OpenFence(broken, now); !errors.Is(err, errDisk) {
		t.Errorf("broken: %v", err)
	}
}
