package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

// Moments are right among each other, in a bubble and outside of it.
func TestClock(t *testing.T) {
	look := func(t *testing.T, exact bool) {
		begun, now := time.Now(), Now()
		time.Sleep(time.Millisecond)
		took := Now() - now
		if now <= 0 {
			t.Errorf("now is %v", now)
		}
		if took < time.Millisecond || exact && took != time.Millisecond {
			t.Errorf("a millisecond takes %v", took)
		}
		if off := Time(now + took).Sub(begun.Add(took)); off < 0 || off > took || exact && off != 0 {
			t.Errorf("the moment is off by %v", off)
		}
		if left := time.Until(Time(Now() + time.Hour)); left > time.Hour || left < 59*time.Minute || exact && left != time.Hour {
			t.Errorf("an hour is %v ahead", left)
		}
	}
	look(t, false)
	synctest.Test(t, func(t *testing.T) { look(t, true) })
}
