package repair

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/ring"
)

const (
	// handoffRest is how long a handoff rests after a message, in multiples of the time it took: both
	// nodes have clients.
	handoffRest = 1
	// handoffTick is how often hints are looked at without a Wake.
	handoffTick = time.Second
)

// HandOff tells peers that are back what they missed, until ctx ends. One peer at a time, one message at a
// time; the next when the peer has taken over what the last one named.
func (r *Repairer) HandOff(ctx context.Context) error {
	h := r.o.Hints
	for ctx.Err() == nil {
		for _, id := range h.waiting() {
			r.handOff(ctx, id)
		}
		select {
		case <-ctx.Done():
		case <-h.wake:
		case <-time.After(min(handoffTick, r.o.Pause)):
		}
	}
	return nil
}

// handOff goes once through the hints that a peer has now, or until it is not to be had.
func (r *Repairer) handOff(ctx context.Context, id ring.NodeID) {
	if !r.o.Peer(id).Healthy() {
		if !r.holds(id) {
			r.o.Hints.forget(id)
		}
		return
	}
	for batch := range slices.Chunk(r.o.Hints.list(id), message.MaxItems) {
		if ctx.Err() != nil {
			return
		}
		began := time.Now()
		if batch = r.due(id, batch); len(batch) == 0 {
			continue
		}
		if !r.tell(ctx, id, batch) {
			return
		}
		sleep(ctx, handoffRest*time.Since(began))
	}
}

// holds reports whether a node is a replica of anything.
func (r *Repairer) holds(id ring.NodeID) bool {
	for p := range ring.Partition(r.o.Partitions) {
		if r.o.Configuration(p).Has(id) {
			return true
		}
	}
	return false
}

// due takes those hints that can be handed off now: not while the partition moves, which takes a member's
// place or goes over by itself. Those of partitions that the peer has left are forgotten.
func (r *Repairer) due(id ring.NodeID, batch []hint) (due []hint) {
	for _, x := range batch {
		switch c := r.o.Configuration(x.p); {
		case !c.Has(id):
			r.o.Hints.take(id, x)
			r.o.Hints.counters.Forgotten.Add(1)
		case len(c.Next) == 0:
			r.o.Hints.take(id, x)
			due = append(due, x)
		}
	}
	return due
}

// tell sends hints to a peer and waits until it has looked at them. false: it takes no more now.
func (r *Repairer) tell(ctx context.Context, id ring.NodeID, batch []hint) bool {
	var links []trace.Link
	for _, x := range batch {
		if x.by != (flight.Context{}) {
			links = append(links, trace.Link{SpanContext: x.by.Remote()})
		}
	}
	ctx, end := flight.Work(ctx, "hints", "", links, attribute.String("kai.peer.id", string(id)), attribute.Int("kai.hints", len(batch)))
	var items []byte
	for _, x := range batch {
		items = message.AppendItem(items, message.Item{Epoch: r.o.Configuration(x.p).Epoch, Key: []byte(x.key)})
	}
	reply := r.send(id, message.Request{Kind: message.Hints, Key: []byte(r.o.Self), Items: items, Trace: flight.Of(ctx)})
	rest, taken := reply.Items, 0
	for _, x := range batch {
		s := reply.Status
		if s == message.OK {
			var a message.Answer
			var ok bool
			if a, rest, ok = message.NextAnswer(rest); !ok {
				a.Status = message.Invalid
			}
			s = a.Status
		}
		switch s {
		case message.OK:
			taken++
			r.o.Hints.counters.HandedOff.Add(1)
		case message.Corrupt, message.Invalid, message.NotReplica:
			r.o.Hints.counters.Forgotten.Add(1) // another time it would be the same
		default:
			r.o.Hints.putBack(id, x)
		}
	}
	var failed error
	if reply.Status != message.OK {
		failed = fmt.Errorf("answered %s", reply.Status)
	}
	end(failed, attribute.Int("kai.hints.handed_off", taken))
	return failed == nil
}
