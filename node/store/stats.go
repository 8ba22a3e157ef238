package store

import (
	"errors"
	"sync/atomic"
	"time"

	"kai/node/record"
)

// Stats are counters since Open and sizes as of now.
type Stats struct {
	// Puts are entries committed, Purges those of them that remove a record, Refused those turned away
	// (busy, full, failed, closed).
	Puts, Purges, Refused int64
	// Batches are groups of entries written to the log together, Syncs the waits for the disk, in
	// all SyncTime long. LogBytes were written.
	Batches, Syncs, LogBytes int64
	SyncTime                 time.Duration
	// SyncBuckets are the Syncs by how long they took: see SyncBounds; one more has those that took longer.
	SyncBuckets [len(SyncBounds) + 1]int64
	// Applied are rows written to the table, in all ApplyTime long. Stalls are waits of the
	// committer for it.
	Applied, Stalls int64
	ApplyTime       time.Duration
	// Hits and Misses of looking into memory, by Peek and Get (a Get after a Peek counts again);
	// Corrupt are damaged records met.
	Hits, Misses, Corrupt int64
	// OverlayBytes and Segments of the log that the table does not have yet.
	OverlayBytes, Segments int64
	// Full and Failed: why Put refuses, if it does.
	Full, Failed bool
}

type counts struct {
	puts, refused, batches, syncs, logBytes, syncNanos atomic.Int64
	applied, stalls, applyNanos                        atomic.Int64
	damaged                                            atomic.Int64
	syncBuckets                                        [len(SyncBounds) + 1]atomic.Int64
	purges, purged                                     atomic.Int64 // committed; no longer in the overlay
}

// SyncBounds are the upper bounds of Stats.SyncBuckets.
var SyncBounds = [...]time.Duration{100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second}

func (c *counts) synced(took time.Duration) {
	c.syncs.Add(1)
	c.syncNanos.Add(int64(took))
	i := 0
	for i < len(SyncBounds) && took > SyncBounds[i] {
		i++
	}
	c.syncBuckets[i].Add(1)
}

// Level is one of the table's levels; see Badger.
type Level struct {
	Level, Tables int
	Bytes         int64
	// Score is how much the level is above what it should have: from 1 on it waits for compaction.
	Score float64
}

// Levels are the table's; nil if it has none.
func (s *Store) Levels() []Level {
	if t, ok := s.table.(interface{ levels() []Level }); ok {
		return t.levels()
	}
	return nil
}

func (c *counts) corrupt(err error) {
	if errors.Is(err, record.ErrCorrupt) {
		c.damaged.Add(1)
	}
}

// Stats returns the store's counters.
func (s *Store) Stats() Stats {
	c := &s.counts
	st := Stats{
		Puts: c.puts.Load(), Purges: c.purges.Load(), Refused: c.refused.Load(),
		Batches: c.batches.Load(), Syncs: c.syncs.Load(), LogBytes: c.logBytes.Load(),
		SyncTime: time.Duration(c.syncNanos.Load()),
		Applied:  c.applied.Load(), Stalls: c.stalls.Load(), ApplyTime: time.Duration(c.applyNanos.Load()),
		Corrupt: c.damaged.Load(), Full: s.noSpace.Load(), Failed: s.failed() != nil,
	}
	for i := range c.syncBuckets {
		st.SyncBuckets[i] = c.syncBuckets[i].Load()
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		st.Hits, st.Misses = st.Hits+sh.hits, st.Misses+sh.misses
		sh.mu.Unlock()
	}
	s.liveMu.Lock()
	for _, chunk := range s.live {
		st.OverlayBytes += int64(len(chunk.buf))
	}
	s.liveMu.Unlock()
	s.segments.mu.Lock()
	st.Segments = int64(len(s.segments.used))
	s.segments.mu.Unlock()
	return st
}
