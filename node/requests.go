package node

import (
	"errors"
	"fmt"

	"kai/node/console"
	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Requests implements console.Tracer.
func (s source) Requests(class string, limit int) ([]console.Request, error) {
	c, ok := flight.ClassOf(class)
	if !ok {
		return nil, errors.New("class is slow, failed, diverged, hinted or sampled")
	}
	addrs := s.n.addrs()
	var all []console.Request
	for _, f := range s.n.flights.Recent(c, limit) {
		all = append(all, request(f, addrs))
	}
	return all, nil
}

func request(f *flight.Flight, addrs map[ring.NodeID]string) console.Request {
	r := console.Request{
		TraceID: f.Trace(), Began: f.Began.UTC(), Took: f.Took.Seconds(), Command: f.Op.String(), Outcome: f.Status.String(), Detail: f.Detail,
		Classes: f.Class.Names(), Partition: int(f.Partition), KeyHash: fmt.Sprintf("%016x", f.Key), Batch: f.Batch, Forwarded: f.Forwarded, Steps: []console.RequestStep{},
	}
	var newest record.Ballot
	tells := func(st flight.Step) bool {
		return st.Status == message.OK && (st.Kind == message.Read || st.Kind == message.Prepare)
	}
	for _, st := range f.Steps {
		if tells(st) && newest.Less(st.Ballot) {
			newest = st.Ballot
		}
	}
	for _, st := range f.Steps {
		step := console.RequestStep{Node: string(st.Node), Addr: addrs[st.Node], Message: st.Kind.String(), Sent: st.Sent.Seconds(), Digest: st.Digest,
			Queue: float64(st.Timing.Queue) / 1e6, Store: float64(st.Timing.Store) / 1e6}
		if st.At != 0 {
			at := st.At.Seconds()
			step.Answered, step.Status, step.Stale = &at, st.Status.String(), tells(st) && st.Ballot.Less(newest)
		}
		if !st.Ballot.IsZero() {
			step.Ballot = fmt.Sprintf("%d.%016x", st.Ballot.Epoch, uint64(st.Ballot.Stamp))
		}
		r.Steps = append(r.Steps, step)
	}
	return r
}
