package memcache

import (
	"sync/atomic"
	"time"

	"kai/node/record"
)

// LatencyBounds are the upper bounds of Latencies' buckets, in seconds; one more has what took longer.
var LatencyBounds = [numBounds]float64{50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3, 1, 2, 5}

const numBounds = 16

var boundNanos = func() (n [numBounds]int64) {
	for i, s := range LatencyBounds {
		n[i] = int64(s * 1e9)
	}
	return n
}()

// outcome sorts statuses by what they mean to who looks after a cluster.
type outcome uint8

const (
	endOK          outcome = iota
	endMiss                // there is no such key
	endRefused             // by what is there: not stored, exists, not a number, too large
	endUnavailable         // certainly not applied
	endUnknown
	endCorrupt
	numOutcomes
)

var outcomeNames = [numOutcomes]string{"ok", "miss", "refused", "unavailable", "unknown", "corrupt"}

// numKinds is more than the kinds of operations that clients have.
const numKinds = record.GetAndTouch + 1

func outcomeOf(s record.Status) outcome {
	switch s {
	case record.Found, record.Stored, record.Deleted, record.Touched, record.Counted:
		return endOK
	case record.NotFound:
		return endMiss
	case record.NotStored, record.Exists, record.NotNumeric, record.TooLarge:
		return endRefused
	case record.Unknown:
		return endUnknown
	case record.Corrupt:
		return endCorrupt
	default:
		return endUnavailable
	}
}

// OutcomeOf is the name that Latencies has for the outcome of operations with that status.
func OutcomeOf(s record.Status) string { return outcomeNames[outcomeOf(s)] }

// latencies are how long operations took, by kind and outcome.
type latencies [numKinds][numOutcomes]latency

type latency struct {
	buckets [numBounds + 1]atomic.Uint64
	nanos   atomic.Uint64 // in all
}

func (l *latency) add(count uint64, each time.Duration) {
	b := 0
	for b < numBounds && int64(each) > boundNanos[b] {
		b++
	}
	l.buckets[b].Add(count)
	l.nanos.Add(count * uint64(max(each, 0)))
}

// add counts a batch: all of it took as long. Neighbours of one kind and outcome are added together.
func (l *latencies) add(ops []record.Op, results []record.Result, took time.Duration) {
	var run *latency
	count := uint64(0)
	for i := range ops {
		if ops[i].Kind >= numKinds {
			continue
		}
		cell := &l[ops[i].Kind][outcomeOf(results[i].Status)]
		if cell != run && count > 0 {
			run.add(count, took)
			count = 0
		}
		run = cell
		count++
	}
	if count > 0 {
		run.add(count, took)
	}
}

// Latencies emits how many operations took how long since the server was made, from when they were read to when their reply
// was made: a count for each bucket (see LatencyBounds), not added up, and the sum in seconds. Kinds and outcomes that never were are left out. It may be
// called at any time, by anyone; emit keeps no slices.
func (s *Server) Latencies(emit func(command, outcome string, buckets []uint64, sum float64)) {
	for kind := range numKinds {
		for o := range numOutcomes {
			var buckets [numBounds + 1]uint64
			count, nanos := uint64(0), uint64(0)
			for i := range s.totals {
				cell := &s.totals[i].latencies[kind][o]
				for b := range buckets {
					n := cell.buckets[b].Load()
					buckets[b] += n
					count += n
				}
				nanos += cell.nanos.Load()
			}
			if count > 0 {
				emit(kind.String(), outcomeNames[o], buckets[:], float64(nanos)/1e9)
			}
		}
	}
}
