package peer

import (
	"sync/atomic"
	"time"
)

type counters struct {
	framesIn, framesOut, bytesIn, bytesOut, reads, writes atomic.Uint64
	connects, refusals, timeouts, busy, late, failures    atomic.Uint64
	hedged                                                atomic.Uint64
}

// Stats is a snapshot of counters since the start; they are read one by one.
type Stats struct {
	FramesIn, FramesOut uint64
	BytesIn, BytesOut   uint64
	Reads, Writes       uint64
	// Connects counts links made (client) or accepted (server); Refusals those that a handshake
	// ended; Failures those that broke later.
	Connects, Refusals, Failures uint64
	// Timeouts counts calls without an answer in time, and requests too old to be handled.
	Timeouts uint64
	// Busy counts calls and requests turned away because a queue was full.
	Busy uint64
	// Late counts replies to calls that were answered before, mostly by their deadline.
	Late uint64
	// Hedged counts reads that went to another node because this one was slow (client only).
	Hedged uint64
	// Pending calls and queued bytes now, of all connections.
	Pending, QueuedBytes int
	// RTT is a moving average (client only).
	RTT time.Duration
	// Connections now (server), or 0 and 1 (client).
	Connections int
}

func (c *counters) snapshot() Stats {
	return Stats{
		FramesIn: c.framesIn.Load(), FramesOut: c.framesOut.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		Reads: c.reads.Load(), Writes: c.writes.Load(),
		Connects: c.connects.Load(), Refusals: c.refusals.Load(), Failures: c.failures.Load(),
		Timeouts: c.timeouts.Load(), Busy: c.busy.Load(), Late: c.late.Load(), Hedged: c.hedged.Load(),
	}
}
