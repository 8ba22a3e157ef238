package flight

import (
	"context"
	"crypto/sha256"
	"encoding/binary"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// spanKey finds the ids of the span that is being made.
type spanKey struct{}

type spanIDs struct {
	trace trace.TraceID
	span  uint64 // 0: any will do
}

// Named has the spans that are made in the context take that id, in that trace; span 0: any.
func Named(ctx context.Context, t trace.TraceID, span uint64) context.Context {
	return context.WithValue(ctx, spanKey{}, spanIDs{t, span})
}

// SpanIDs knows the ids of spans that other nodes, which have a part in the request, have been told. For telemetry.Options.
func SpanIDs(ctx context.Context) (t trace.TraceID, s trace.SpanID, ok bool) {
	ids, _ := ctx.Value(spanKey{}).(spanIDs)
	binary.LittleEndian.PutUint64(s[:], ids.span)
	return ids.trace, s, ids.span != 0
}

// Work begins a span of the node's own work, which no client waits for. If common is not empty, it begins a trace that all nodes have in
// common who do a part of what has that name; else it is part of what ctx is in. end takes what came of it; who was told to stop has not failed.
func Work(ctx context.Context, name, common string, links []trace.Link, of ...attribute.KeyValue) (inner context.Context, end func(error, ...attribute.KeyValue)) {
	if common != "" {
		sum := sha256.Sum256([]byte(common))
		ctx = Named(ctx, trace.TraceID(sum[:16]), Span())
	}
	inner, span := otel.Tracer("kai").Start(ctx, name, trace.WithAttributes(of...), trace.WithLinks(links...))
	return Named(inner, trace.TraceID{}, 0), func(err error, also ...attribute.KeyValue) {
		span.SetAttributes(also...)
		if err != nil && ctx.Err() == nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

// Of is the context of the span that ctx is in, for messages that are sent for it; zero if that is not recorded.
func Of(ctx context.Context) (c Context) {
	if s := trace.SpanContextFromContext(ctx); s.IsValid() && s.IsSampled() {
		t, id := s.TraceID(), s.SpanID()
		copy(c[:], t[:])
		copy(c[16:], id[:])
		c.Sample()
	}
	return c
}

// Remote is c as OpenTelemetry knows the context of a span of another node.
func (c Context) Remote() trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID(c[:16]), SpanID: trace.SpanID(c[16:24]), TraceFlags: trace.FlagsSampled, Remote: true})
}
