package telemetry

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
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
func protocol(getenv func(string) string, signal string) (string, error) {
	get := func(names ...string) (value string) {
		for _, name := range names {
			value = cmp.Or(value, strings.TrimSpace(getenv(name)))
		}
		return value
	}
	which := "OTEL_" + signal + "_EXPORTER"
	switch value := get(which); value {
	case "none":
		return "", nil
	case "prometheus": // it is there, at /metrics of the admin port
		if signal == "METRICS" {
			return "", nil
		}
		fallthrough
	default:
		return "", fmt.Errorf("telemetry: %s=%q: this build knows otlp and none", which, value)
	case "", "otlp":
	}
	if get("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
		return "", nil // the default, a collector on this machine, would be asked for ever where there is none
	}
	switch value := get("OTEL_EXPORTER_OTLP_"+signal+"_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); value {
	case "", "http/protobuf":
		return "http/protobuf", nil
	case "grpc":
		return value, nil
	default:
		return "", fmt.Errorf("telemetry: OTEL_EXPORTER_OTLP_PROTOCOL=%q: this build knows http/protobuf and grpc", value)
	}
}

// newSpanExporter makes the exporter that OpenTelemetry's variables ask for; nil: none. It connects to nothing yet. The exporter itself reads the rest of the
// OTEL_EXPORTER_OTLP_ variables from the process.
func newSpanExporter(ctx context.Context, getenv func(string) string) (sdktrace.SpanExporter, error) {
	switch how, err := protocol(getenv, "TRACES"); how {
	case "grpc":
		return otlptracegrpc.New(ctx)
	case "":
		return nil, err
	default:
		return otlptracehttp.New(ctx)
	}
}

// newMetricExporter is newSpanExporter for metrics.
func newMetricExporter(ctx context.Context, getenv func(string) string) (sdkmetric.Exporter, error) {
	switch how, err := protocol(getenv, "METRICS"); how {
	case "grpc":
		return otlpmetricgrpc.New(ctx)
	case "":
		return nil, err
	default:
		return otlpmetrichttp.New(ctx)
	}
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
