package telemetry

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Spans counts spans on their way out. What has ended and is neither exported nor failed waits in the SDK's queue, or was dropped because that was full.
type Spans struct{ Ended, Exported, Failed atomic.Uint64 }

// protocol is how OpenTelemetry's variables want a signal, TRACES or METRICS, exported: http/protobuf or grpc; "": not at all.
func protocol(getenv func(string) string, signal string) (string, *Fault) {
	get := func(names ...string) (name, value string) {
		for _, name := range names {
			if value := strings.TrimSpace(getenv(name)); value != "" {
				return name, value
			}
		}
		return "", ""
	}
	switch name, value := get("OTEL_" + signal + "_EXPORTER"); value {
	case "none":
		return "", nil
	case "prometheus": // it is there, at /metrics of the admin port
		if signal == "METRICS" {
			return "", nil
		}
		fallthrough
	default:
		return "", &Fault{name, value, "is an exporter that this build does not know", "set otlp or none"}
	case "", "otlp":
	}
	if _, endpoint := get("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"); endpoint == "" {
		return "", nil // the default, a collector on this machine, would be asked for ever where there is none
	}
	switch name, value := get("OTEL_EXPORTER_OTLP_"+signal+"_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); value {
	case "", "http/protobuf":
		return "http/protobuf", nil
	case "grpc":
		return value, nil
	default:
		return "", &Fault{name, value, "is a protocol that this build does not know", "set http/protobuf or grpc"}
	}
}

// newSpanExporter makes the exporter that OpenTelemetry's variables ask for; nil: none. It connects to nothing yet. The exporter itself reads the rest of the
// OTEL_EXPORTER_OTLP_ variables from the process.
func newSpanExporter(ctx context.Context, getenv func(string) string) (sdktrace.SpanExporter, error) {
	how, fault := protocol(getenv, "TRACES")
	switch {
	case fault != nil:
		return nil, *fault
	case how == "":
		return nil, nil //nolint:nilnil // none is asked for
	case how == "grpc":
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

// newMetricExporter is newSpanExporter for metrics.
func newMetricExporter(ctx context.Context, getenv func(string) string) (sdkmetric.Exporter, error) {
	how, fault := protocol(getenv, "METRICS")
	switch {
	case fault != nil:
		return nil, *fault
	case how == "":
		return nil, nil //nolint:nilnil // none is asked for
	case how == "grpc":
		return otlpmetricgrpc.New(ctx)
	}
	return otlpmetrichttp.New(ctx)
}

// counting counts what an exporter was given.
type counting struct {
	sdktrace.SpanExporter
	spans *Spans
}

func (c counting) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		c.spans.Failed.Add(uint64(len(spans)))
	} else {
		c.spans.Exported.Add(uint64(len(spans)))
	}
	return err
}

// ended counts spans that end.
type ended struct {
	sdktrace.SpanProcessor
	spans *Spans
}

func (e ended) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.SpanContext().IsSampled() {
		e.spans.Ended.Add(1)
	}
	e.SpanProcessor.OnEnd(s)
}

// ids takes ids from who knows them, else from random numbers.
type ids struct {
	given func(context.Context) (trace.TraceID, trace.SpanID, bool)
}

// NewIDs implements the SDK's IDGenerator.
func (i ids) NewIDs(ctx context.Context) (t trace.TraceID, s trace.SpanID) {
	if i.given != nil {
		if t, s, ok := i.given(ctx); ok {
			return t, s
		}
	}
	random(t[:])
	random(s[:])
	return t, s
}

// NewSpanID implements the SDK's IDGenerator, for spans within a trace.
func (i ids) NewSpanID(ctx context.Context, within trace.TraceID) (s trace.SpanID) {
	if i.given != nil {
		if t, s, ok := i.given(ctx); ok && t == within {
			return s
		}
	}
	random(s[:])
	return s
}

// random fills b, of 8 or 16 bytes, with no part that is zero; not for secrets.
func random(b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, rand.Uint64()|1) //nolint:gosec // names, not secrets
	}
}
