package memcache

import (
	"sync/atomic"

	"kai/node/record"
)

// counter numbers what the server counts.
type counter uint8

const (
	totalConnections counter = iota
	rejectedConnections
	cmdGet
	cmdSet
	cmdFlush
	cmdTouch
	getHits
	getMisses
	getErrors
	deleteMisses
	deleteHits
	incrMisses
	incrHits
	decrMisses
	decrHits
	casMisses
	casHits
	casBadval
	touchHits
	touchMisses
	storeTooLarge
	bytesRead
	bytesWritten
	outcomeUnavailable
	outcomeUnknown
	outcomeCorrupt
	numCounters
)

// counterNames are those of stats.
var counterNames = [numCounters]string{
	totalConnections: "total_connections", rejectedConnections: "rejected_connections",
	cmdGet: "cmd_get", cmdSet: "cmd_set", cmdFlush: "cmd_flush", cmdTouch: "cmd_touch",
	getHits: "get_hits", getMisses: "get_misses",
	deleteMisses: "delete_misses", deleteHits: "delete_hits",
	incrMisses: "incr_misses", incrHits: "incr_hits", decrMisses: "decr_misses", decrHits: "decr_hits",
	casMisses: "cas_misses", casHits: "cas_hits", casBadval: "cas_badval",
	touchHits: "touch_hits", touchMisses: "touch_misses",
	storeTooLarge: "store_too_large", bytesRead: "bytes_read", bytesWritten: "bytes_written",
	getErrors: "kai_get_errors", outcomeUnavailable: "kai_unavailable",
	outcomeUnknown: "kai_outcome_unknown", outcomeCorrupt: "kai_corrupt",
}

// shard holds the totals of some of the connections. A connection counts in plain integers and adds
// them here when it writes, so the hot path shares no cache line with more than its shard's siblings.
type shard struct {
	n         [numCounters]atomic.Uint64
	latencies latencies
	_         [64]byte
}

// addCounts moves the connection's counts to the totals.
func (c *conn) addCounts() {
	for i, n := range c.counts {
		if n != 0 {
			c.totals.n[i].Add(n)
			c.counts[i] = 0
		}
	}
}

// Counters emits what the server has counted since it was made, under the names of stats. It never
// goes back, not even with stats reset, and lags behind by what connections have not added yet: at
// most one batch each. It may be called at any time, by anyone.
func (s *Server) Counters(emit func(name string, n uint64)) {
	for k, name := range counterNames {
		emit(name, s.total(counter(k)))
	}
}

// Connections is the number of open connections.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *Server) total(k counter) (sum uint64) {
	for i := range s.totals {
		sum += s.totals[i].n[k].Load()
	}
	return sum
}

// tally counts one operation by its outcome, with memcached's names (protocol.txt, "General-purpose
// statistics").
func (c *conn) tally(kind record.OpKind, status record.Status) {
	n := &c.counts
	switch status {
	case record.Unavailable:
		n[outcomeUnavailable]++
	case record.Unknown:
		n[outcomeUnknown]++
	case record.Corrupt:
		n[outcomeCorrupt]++
	}
	switch kind {
	case record.Get:
		n[cmdGet]++
		switch status {
		case record.Found:
			n[getHits]++
		case record.NotFound:
			n[getMisses]++
		default:
			n[getErrors]++
		}
	case record.Touch, record.GetAndTouch:
		n[cmdTouch]++
		hitOrMiss(n, status, touchHits, touchMisses)
	case record.Incr:
		hitOrMiss(n, status, incrHits, incrMisses)
	case record.Decr:
		hitOrMiss(n, status, decrHits, decrMisses)
	case record.Delete:
		hitOrMiss(n, status, deleteHits, deleteMisses)
	case record.CompareAndSwap:
		if status == record.Exists {
			n[casBadval]++
		} else {
			hitOrMiss(n, status, casHits, casMisses)
		}
	}
}

func hitOrMiss(n *[numCounters]uint64, status record.Status, hit, miss counter) {
	switch status {
	case record.NotFound:
		n[miss]++
	case record.Found, record.Stored, record.Touched, record.Counted, record.Deleted:
		n[hit]++
	}
}
