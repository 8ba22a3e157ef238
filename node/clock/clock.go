// Package clock is the monotonic clock of the process, with one zero for all: a time that one part has looked up another can use, where each
// look costs thirty nanoseconds and more.
package clock

import "time"

// zero lies so far back that Now is positive under testing/synctest, too, whose clocks begin with the year 2000.
var zero = time.Now().Add(-100 * 365 * 24 * time.Hour)

// Now is the time since a moment long ago, by the monotonic clock alone: half of what time.Now costs. It is positive. Under testing/synctest it is
// the bubble's clock.
func Now() time.Duration { return time.Since(zero) }

// Time is the moment at which Now was d, to be compared with others (time.Until and the like). What it shows on the wall is off where that clock was set since, and under
// testing/synctest.
func Time(d time.Duration) time.Time { return zero.Add(d) }
