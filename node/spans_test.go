package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
)

// givenIDs is an IDGenerator as package telemetry has it.
type givenIDs struct{}

func (givenIDs) NewSpanID(ctx context.Context, within trace.TraceID) trace.SpanID {
	if t, s, ok := flight.SpanIDs(ctx); ok && t == within {
		return s
	}
	c := flight.NewContext()
	return trace.SpanID(c[16:24])
}

func (givenIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	t, s, ok := flight.SpanIDs(ctx)
	if !ok {
		c := flight.NewContext()
		return trace.TraceID(c[:16]), trace.SpanID(c[16:24])
	}
	return t, s
}

// recordSpans has spans recorded until the test ends.
func recordSpans(t *testing.T) *tracetest.SpanRecorder {
	recorder := tracetest.NewSpanRecorder()
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder), sdktrace.WithIDGenerator(givenIDs{})))
	t.Cleanup(func() { otel.SetTracerProvider(before) })
	return recorder
}

// A get that found its replicas to differ, and had the newest state written back, as spans.
func TestSpansOfADivergedGet(t *testing.T) {
	recorder := recordSpans(t)
	n := &node{}
	n.links = newLinks(n)
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	newer, older := record.Ballot{Epoch: 1, Stamp: 9}, record.Ballot{Epoch: 1, Stamp: 8}
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	f := &flight.Flight{Context: flight.NewContext(), Began: began, Took: ms(9), Op: record.Get, Partition: 7, Status: record.Found, Class: flight.Diverged, Batch: 1, Steps: []flight.Step{
		{Node: "a", Kind: message.Read, Answer: flight.Answer{At: ms(1), Ballot: newer, Status: message.OK, Timing: message.Timing{Queue: 5, Store: 100}}},
		{Node: "b", Kind: message.Read, Answer: flight.Answer{At: ms(2), Ballot: older, Status: message.OK, Digest: true}},
		{Node: "a", Kind: message.Accept, Sent: ms(3), Span: 77, Answer: flight.Answer{At: ms(5), Status: message.OK}},
		{Node: "b", Kind: message.Accept, Sent: ms(3), Answer: flight.Answer{At: ms(8), Status: message.OK}},
		{Node: "c", Kind: message.Accept, Sent: ms(3)},
	}}
	n.spans(t.Context(), f)
	byID := map[trace.SpanID]sdktrace.ReadOnlySpan{}
	for _, s := range recorder.Ended() {
		byID[s.SpanContext().SpanID()] = s
		if s.SpanContext().TraceID() != trace.TraceID(f.Context[:16]) {
			t.Errorf("%s is in another trace", s.Name())
		}
	}
	var lines []string
	for _, s := range recorder.Ended() {
		path := s.Name()
		for p := s; p.Parent().IsValid(); {
			p = byID[p.Parent().SpanID()]
			path = p.Name() + " > " + path
		}
		attributes := ""
		for _, a := range s.Attributes() {
			switch a.Key {
			case "kai.peer.id", "kai.stale", "kai.status", "kai.outcome", "kai.kept_for", "kai.store_seconds", "kai.network_seconds":
				attributes += fmt.Sprintf(" %s=%s", strings.TrimPrefix(string(a.Key), "kai."), a.Value.String())
			}
		}
		lines = append(lines, fmt.Sprintf("%s %v-%v%s", path, s.StartTime().Sub(began), s.EndTime().Sub(began), attributes))
	}
	want := []string{
		"get > quorum.read > read 0s-1ms peer.id=a status=ok stale=false store_seconds=0.0001 network_seconds=0.000895",
		"get > quorum.read > read 0s-2ms peer.id=b status=ok stale=true store_seconds=0 network_seconds=0.002",
		"get > quorum.read 0s-2ms",
		"get > quorum.write > accept 3ms-5ms peer.id=a status=ok stale=false store_seconds=0 network_seconds=0.002",
		"get > quorum.write > accept 3ms-8ms peer.id=b status=ok stale=false store_seconds=0 network_seconds=0.005",
		"get > quorum.write > accept 3ms-9ms peer.id=c status=none yet stale=false store_seconds=0",
		"get > quorum.write 3ms-9ms",
		`get 0s-9ms outcome=found kept_for=["diverged"]`,
	}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	if root := byID[trace.SpanID(f.Context[16:24])]; root == nil || root.Name() != "get" || root.Parent().IsValid() {
		t.Error("the root does not have the id that other nodes were told")
	}
	// The part of another node hangs below that root.
	other := *f
	other.Forwarded = true
	n.spans(t.Context(), &other)
	all := recorder.Ended()
	if last := all[len(all)-1]; last.Parent().SpanID() != trace.SpanID(f.Context[16:24]) || last.SpanContext().TraceID() != trace.TraceID(f.Context[:16]) || last.SpanContext().SpanID() == last.Parent().SpanID() {
		t.Errorf("%v below %v", last.SpanContext(), last.Parent())
	}

	// And what a replica did hangs below the message that asked it.
	n.identity.Node = "a"
	n.partSpan(t.Context(), &flight.Part{Context: f.Context.From(77), Kind: message.Accept, Partition: 7, Began: began.Add(ms(4)), Took: ms(1), Status: message.OK, Timing: message.Timing{Store: 100}})
	all = recorder.Ended()
	part := all[len(all)-1]
	asked := byID[part.Parent().SpanID()]
	if asked == nil || asked.Name() != "accept" || part.Name() != "replica.accept" || part.SpanKind() != trace.SpanKindServer || asked.SpanKind() != trace.SpanKindClient || part.SpanContext().TraceID() != asked.SpanContext().TraceID() {
		t.Errorf("%s is below %v", part.Name(), part.Parent())
	}
}

// What nodes do by themselves are traces, too: one for all who do a part of the same.
func TestWork(t *testing.T) {
	recorder := recordSpans(t)
	_, end := flight.Work(t.Context(), "move", "partition 7", nil)
	end(nil)
	ctx, end := flight.Work(t.Context(), "pull", "partition 7", nil)
	_, inner := flight.Work(ctx, "pull.snapshot", "", nil)
	inner(errors.New("gone"))
	end(nil)
	stopped, stop := context.WithCancel(t.Context())
	by := flight.NewContext()
	stopped, end = flight.Work(stopped, "hints", "", []trace.Link{{SpanContext: by.Remote()}})
	sent := flight.Of(stopped)
	stop()
	end(stopped.Err())
	all := recorder.Ended()
	move, nested, pull, hints := all[0], all[1], all[2], all[3]
	if move.SpanContext().TraceID() != pull.SpanContext().TraceID() || move.SpanContext().SpanID() == pull.SpanContext().SpanID() || move.Parent().IsValid() {
		t.Errorf("%v and %v have no trace in common", move.SpanContext(), pull.SpanContext())
	}
	if nested.Parent().SpanID() != pull.SpanContext().SpanID() || nested.SpanContext().TraceID() != pull.SpanContext().TraceID() || nested.Status().Code != codes.Error {
		t.Errorf("%v is not within %v", nested.SpanContext(), pull.SpanContext())
	}
	if hints.SpanContext().TraceID() == pull.SpanContext().TraceID() || hints.Status().Code == codes.Error || len(hints.Links()) != 1 || hints.Links()[0].SpanContext.SpanID() != trace.SpanID(by[16:24]) {
		t.Errorf("%v, %v, linked to %v", hints.SpanContext(), hints.Status(), hints.Links())
	}
	if !sent.Sampled() || sent.Trace() != hints.SpanContext().TraceID().String() || trace.SpanID(sent[16:24]) != hints.SpanContext().SpanID() {
		t.Errorf("messages tell %v of %v", sent, hints.SpanContext())
	}
	if c := flight.Of(t.Context()); c.Sampled() {
		t.Error("a context without a span tells of one")
	}
}
