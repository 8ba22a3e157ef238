package telemetry

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// LogOptions says how log lines look.
type LogOptions struct {
	// Text makes lines for people; otherwise they are JSON.
	Text  bool
	Level slog.Leveler
}

// NewLogger returns a logger that writes one line a record to w, with the trace and span id of the
// context it is given. Attributes named as if they held what clients store are withheld: keys and
// values are never logged, not even by mistake.
func NewLogger(w io.Writer, o LogOptions) *slog.Logger {
	options := &slog.HandlerOptions{Level: o.Level, ReplaceAttr: withhold}
	if o.Text {
		return slog.New(handler{slog.NewTextHandler(w, options)})
	}
	return slog.New(handler{slog.NewJSONHandler(w, options)})
}

func withhold(_ []string, a slog.Attr) slog.Attr {
	switch a.Key {
	case "key", "keys", "value", "values":
		a.Value = slog.StringValue("(withheld)")
	}
	return a
}

// handler adds trace_id and span_id.
type handler struct{ slog.Handler }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r = r.Clone() // the caller may hand the same record to another handler
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
