package flight

import (
	"testing"
	"testing/synctest"
	"time"

	"kai/node/clock"
	"kai/node/record"
)

func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exported := 0
		r := New(Options{Slow: 10 * time.Millisecond, Keep: 3, Rate: 4, Export: func(*Flight) { exported++ }})
		began := clock.Now()
		if c := r.Classify(time.Millisecond, record.Found, 0); c != 0 {
			t.Errorf("a quick one is kept as %v", c.Names())
		}
		if c := r.Classify(time.Millisecond, record.Unknown, Diverged); c != Failed|Diverged {
			t.Errorf("%v", c.Names())
		}
		time.Sleep(10 * time.Millisecond)
		if c := r.Classify(clock.Now()-began, record.Stored, 0); c != Slow {
			t.Errorf("%v after %v", c.Names(), clock.Now()-began)
		}
		for i := range 5 { // of which two are too many, after the one above
			if c := r.Classify(time.Second, record.Stored, 0); c != 0 {
				r.Add(&Flight{Class: c, Took: time.Duration(i)}, began, 7)
			}
		}
		recent := r.Recent(Slow, 9)
		if len(recent) != 3 || recent[0].Took != 2 || recent[2].Took != 0 || len(r.Recent(Slow, 2)) != 2 || len(r.Recent(Failed, 9)) != 0 {
			t.Fatalf("%d are there", len(recent))
		}
		if recent[0].Key == 7 || recent[0].Key != recent[1].Key {
			t.Errorf("the key's hash shows: %d", recent[0].Key)
		}
		r.Counts(func(class string, kept, dropped uint64) {
			if class == "slow" && (kept != 3 || dropped != 2) || class != "slow" && kept+dropped != 0 {
				t.Errorf("%s: %d kept, %d dropped", class, kept, dropped)
			}
		})
		time.Sleep(time.Second)
		r.Add(&Flight{Class: r.Classify(time.Second, record.Unknown, Sampled), Took: 9}, clock.Now(), 7)
		if r.Recent(Slow, 1)[0].Took != 9 || r.Recent(Failed, 1)[0].Took != 9 || r.Recent(Sampled, 1)[0].Took != 9 {
			t.Error("the next second's is missing")
		}
		if exported != 4 || r.Sample(began) {
			t.Errorf("%d were exported, sampled %t", exported, r.Sample(began))
		}
		now := clock.Now()
		all, some, n := New(Options{Ratio: 1, Rate: 1000}), New(Options{Ratio: 0.5, Rate: 1000}), 0
		for range 1000 {
			if !all.Sample(now) {
				t.Fatal("not all are sampled")
			}
			if some.Sample(now) {
				n++
			}
		}
		if all.Sample(now+time.Second/2) || !all.Sample(now+time.Second) {
			t.Error("a second has its own number of them")
		}
		if n < 350 || n > 650 {
			t.Errorf("%d of 1000 are sampled, not half", n)
		}
	})
	var none *Recorder
	if c := none.Classify(time.Hour, record.Unknown, Diverged|Sampled); c != 0 || none.Recent(Slow, 1) != nil {
		t.Error("without a recorder something is kept")
	}
	if a, b := NewContext(), NewContext(); a.Trace() == b.Trace() || len(a.Trace()) != 32 {
		t.Error("traces have no names of their own")
	}
}
