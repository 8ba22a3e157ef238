package quorum

import (
	"testing"
	"time"
)

func TestTail(t *testing.T) {
	c := New(Options{})
	tail := c.Tail()
	if _, ok := tail(); ok {
		t.Error("nothing tells something")
	}
	for i := range 1000 {
		d := 300 * time.Microsecond
		if i%50 == 0 {
			d = 8 * time.Millisecond
		}
		c.observeLatency(d)
	}
	d, ok := tail()
	if !ok || d < 6*time.Millisecond || d > 8*time.Millisecond {
		t.Errorf("%s %v", d, ok)
	}
	if _, ok := tail(); ok {
		t.Error("told twice")
	}
	for d := 4 * time.Microsecond; d < time.Minute; d = d*11/10 + 1 {
		i := tailStep(d)
		low := time.Microsecond << (i / 4)
		if low += low * time.Duration(i%4) / 4; low > d+time.Microsecond || d > low*13/10+time.Microsecond {
			t.Fatalf("%s is counted as %s", d, low)
		}
	}
}
