package node

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"kai/node/console"
	"kai/node/flight"
	"kai/node/message"
	"kai/node/ring"
)

// flightsOut is how many kept flights, and parts of others', wait to become spans; more are not exported.
const flightsOut = 1024

// kept is what becomes spans: a request of this node, or its part in another's.
type kept struct {
	flight *flight.Flight
	part   *flight.Part
}

// exportFlights makes spans of what is kept until ctx ends. What becomes of spans is up to whoever has set the tracer provider.
func (n *node) exportFlights(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case k := <-n.flightsOut:
			if k.part != nil {
				n.partSpan(ctx, k.part)
			} else {
				n.spans(ctx, k.flight)
			}
		}
	}
}

// offer hands what is kept to exportFlights, if there is room.
func (n *node) offer(k kept) {
	select {
	case n.flightsOut <- k:
	default:
		n.notExported.Add(1)
	}
}

// served hears of messages of sampled requests that this node has answered. Mutations that it ran for others have flights of their own.
func (n *node) served(call *message.Call, took time.Duration) {
	if call.Kind == message.Mutate {
		return
	}
	n.flights.AddPart(flight.Part{Context: call.Trace, Kind: call.Kind, Partition: call.Partition, Began: time.Now().Add(-took), Took: took,
		Timing: call.Reply.Timing, Status: call.Reply.Status})
}

// partSpan makes the span of a replica's part.
func (n *node) partSpan(ctx context.Context, p *flight.Part) {
	ctx = trace.ContextWithRemoteSpanContext(ctx, p.Remote())
	_, span := otel.Tracer("kai").Start(ctx, "replica."+p.Kind.String(), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(p.Began))
	span.SetAttributes(attribute.String("db.system.name", "kai"), attribute.String("kai.node.id", string(n.identity.Node)), attribute.String("kai.status", p.Status.String()),
		attribute.Float64("kai.queue_seconds", float64(p.Timing.Queue)/1e6), attribute.Float64("kai.store_seconds", float64(p.Timing.Store)/1e6))
	if p.Kind != message.ReadMany && p.Kind != message.Hints { // those are about several
		span.SetAttributes(attribute.Int("kai.partition", int(p.Partition)))
	}
	if p.Status != message.OK && p.Status != message.Nack && p.Status != message.WrongEpoch { // those are how the protocol goes
		span.SetStatus(codes.Error, p.Status.String())
	}
	span.End(trace.WithTimestamp(p.Began.Add(p.Took)))
}

// spans makes the spans of one flight: the request; within it its reads and its writes; within those one for each message to a replica.
func (n *node) spans(ctx context.Context, f *flight.Flight) {
	tracer := otel.Tracer("kai")
	id := trace.TraceID(f.Context[:16])
	if f.Forwarded {
		ctx = trace.ContextWithRemoteSpanContext(ctx, f.Remote())
	} else {
		ctx = flight.Named(ctx, id, binary.LittleEndian.Uint64(f.Context[16:]))
	}
	at := func(d time.Duration) time.Time { return f.Began.Add(d) }
	ctx, root := tracer.Start(ctx, f.Op.String(), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(f.Began))
	if !root.IsRecording() {
		root.End(trace.WithTimestamp(at(f.Took)))
		return
	}
	ctx = flight.Named(ctx, id, 0)
	r := request(f, n.addrs())
	root.SetAttributes(
		attribute.String("db.system.name", "kai"), attribute.String("db.operation.name", r.Command), attribute.String("kai.outcome", r.Outcome),
		attribute.Int("kai.partition", r.Partition), attribute.String("kai.key_hash", r.KeyHash), attribute.StringSlice("kai.kept_for", r.Classes),
		attribute.Bool("kai.forwarded", f.Forwarded), attribute.Int("kai.batch", f.Batch), attribute.String("kai.node.id", string(n.identity.Node)))
	if f.Class&flight.Failed != 0 {
		root.SetAttributes(attribute.String("error.type", r.Outcome))
		root.SetStatus(codes.Error, r.Detail)
	}
	for i := 0; i < len(f.Steps); {
		phase, end := phaseOf(f.Steps[i].Kind), i
		from, to := f.Steps[i].Sent, time.Duration(0)
		for ; end < len(f.Steps) && phaseOf(f.Steps[end].Kind) == phase; end++ {
			from = min(from, f.Steps[end].Sent)
			if to = max(to, f.Steps[end].At); f.Steps[end].At == 0 {
				to = f.Took
			}
		}
		inner, span := tracer.Start(ctx, phase, trace.WithTimestamp(at(from)))
		for ; i < end; i++ {
			n.stepSpan(flight.Named(inner, id, f.Steps[i].Span), tracer, f, i, r.Steps[i])
		}
		span.End(trace.WithTimestamp(at(to)))
	}
	root.End(trace.WithTimestamp(at(f.Took)))
}

// phaseOf is the span that a message belongs to.
func phaseOf(k message.Kind) string {
	switch k {
	case message.Mutate:
		return "forward"
	case message.Prepare, message.Accept:
		return "quorum.write"
	default:
		return "quorum.read"
	}
}

func (n *node) stepSpan(ctx context.Context, tracer trace.Tracer, f *flight.Flight, i int, r console.RequestStep) {
	st := &f.Steps[i]
	_, span := tracer.Start(ctx, r.Message, trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(f.Began.Add(st.Sent)))
	all := make([]attribute.KeyValue, 0, 10) // set at once: the SDK copies what it has each time
	all = append(all, attribute.String("kai.peer.id", r.Node), attribute.String("kai.status", cmp.Or(r.Status, "none yet")), attribute.Bool("kai.digest", r.Digest), attribute.Bool("kai.stale", r.Stale),
		attribute.Float64("kai.queue_seconds", r.Queue), attribute.Float64("kai.store_seconds", r.Store))
	if st.At != 0 { // what the replica does not account for: the way there and back
		all = append(all, attribute.Float64("kai.network_seconds", max(0, (st.At-st.Sent).Seconds()-r.Queue-r.Store)))
	}
	if r.Ballot != "" {
		all = append(all, attribute.String("kai.ballot", r.Ballot))
	}
	if host, port, err := net.SplitHostPort(r.Addr); err == nil {
		all = append(all, attribute.String("network.peer.address", host))
		if p, err := strconv.Atoi(port); err == nil {
			all = append(all, attribute.Int("network.peer.port", p))
		}
	}
	span.SetAttributes(all...)
	ended := st.At
	switch {
	case st.At == 0: // no error: a quorum was enough
		ended = f.Took
	case st.Status != message.OK:
		span.SetStatus(codes.Error, fmt.Sprint("answered ", r.Status))
	}
	span.End(trace.WithTimestamp(f.Began.Add(ended)))
}

// addrs are the peers' addresses, this node's own included.
func (n *node) addrs() map[ring.NodeID]string {
	addrs := map[ring.NodeID]string{n.identity.Node: n.cfg.PeerAddr()}
	for _, link := range n.links.sorted() {
		addrs[link.Node()] = link.Addr()
	}
	return addrs
}
