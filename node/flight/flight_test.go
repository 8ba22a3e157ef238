package flight

import (
	"testing"
	"testing/synctest"
	"time"

	"kai/node/record"
)

func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exported := 0
		r := New(Options{Slow: 10 * time.Millisecond, Keep: 3, Rate: 4, Export: func(*Flight) { exported++ }})
		began := r.Now()
		if c := r.Classify(time.Millisecond, record.Found, false, false); c != 0 {
			t.Errorf("a quick one is kept as %v", c.Names())
		}
		if c := r.Classify(time.Millisecond, record.Unknown, true, false); c != Failed|Diverged {
			t.Errorf("%v", c.Names())
		}
		time.Sleep(10 * time.Millisecond)
		if c := r.Classify(r.Now()-began, record.Stored, false, false); c != Slow {
			t.Errorf("%v after %v", c.Names(), r.Now()-began)
		}
		for i := range 6 { // of which two are too many
			r.Add(&Flight{Class: Slow, Took: time.Duration(i)}, began, 7)
		}
		recent := r.Recent(Slow, 9)
		if len(recent) != 3 || recent[0].Took != 3 || recent[2].Took != 1 || len(r.Recent(Slow, 2)) != 2 || len(r.Recent(Failed, 9)) != 0 {
			t.Fatalf("%d are there", len(recent))
		}
		if recent[0].Key == 7 || recent[0].Key != recent[1].Key {
			t.Errorf("the key's hash shows: %d", recent[0].Key)
		}
		r.Counts(func(class string, kept, dropped uint64) {
			if class == "slow" && (kept != 4 || dropped != 2) || class != "slow" && kept+dropped != 0 {
				t.Errorf("%s: %d kept, %d dropped", class, kept, dropped)
			}
		})
		time.Sleep(time.Second)
		r.Add(&Flight{Class: Slow | Failed, Took: 9}, r.Now(), 7)
		if r.Recent(Slow, 1)[0].Took != 9 || r.Recent(Failed, 1)[0].Took != 9 {
			t.Error("the next second's is missing")
		}
		if exported != 5 || r.Sample() {
			t.Errorf("%d were exported, sampled %t", exported, r.Sample())
		}
		all, some, n := New(Options{Ratio: 1}), New(Options{Ratio: 0.5}), 0
		for range 1000 {
			if !all.Sample() {
				t.Fatal("not all are sampled")
			}
			if some.Sample() {
				n++
			}
		}
		if n < 350 || n > 650 {
			t.Errorf("%d of 1000 are sampled, not half", n)
		}
	})
	var none *Recorder
	if c := none.Classify(none.Now(), record.Unknown, true, true); c != 0 || none.Recent(Slow, 1) != nil {
		t.Error("without a recorder something is kept")
	}
	if a, b := NewContext(), NewContext(); a.Trace() == b.Trace() || len(a.Trace()) != 32 {
		t.Error("traces have no names of their own")
	}
}
