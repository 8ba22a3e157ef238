package placement

import "sync/atomic"

// Counters count what a Mover did since it was made.
type Counters struct {
	// Records and Bytes (of keys and encoded records) were pulled from other nodes and stored, or found
	// to be here already. A partition comes from a read quorum, so each record may count more than once.
	Records, Bytes atomic.Uint64
	// LoadedRecords and LoadedBytes are those that came from snapshots.
	LoadedRecords, LoadedBytes atomic.Uint64
	// Pulled counts the partitions taken over by this node.
	Pulled atomic.Uint64
	// Ended counts the moves that this node drove to their end, Undone those it took back; a rival may
	// count the same move.
	Ended, Undone atomic.Uint64
}

// Counters returns the counters.
func (m *Mover) Counters() *Counters { return &m.counters }
