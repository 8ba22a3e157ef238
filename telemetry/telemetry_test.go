package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// recorder keeps the spans that ended.
type recorder struct {
	ended []sdktrace.ReadOnlySpan
	stops int
}

func (r *recorder) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (r *recorder) OnEnd(s sdktrace.ReadOnlySpan)                   { r.ended = append(r.ended, s) }
func (r *recorder) Shutdown(context.Context) error                  { r.stops++; return nil }
func (r *recorder) ForceFlush(context.Context) error                { return nil }

// start resets the process's provider before and after the test.
func start(t *testing.T, environ map[string]string, processors ...sdktrace.SpanProcessor) (func(context.Context) error, *strings.Builder) {
	t.Helper()
	before, propagator := otel.GetTracerProvider(), otel.GetTextMapPropagator()
	otel.SetTracerProvider(noop.NewTracerProvider())
	t.Cleanup(func() { otel.SetTracerProvider(before); otel.SetTextMapPropagator(propagator) })
	log := &strings.Builder{}
	shutdown, err := Start(t.Context(), Options{
		Service: "kai", Version: "v1", Getenv: func(name string) string { return environ[name] },
		Logger: NewLogger(log, LogOptions{Level: slog.LevelInfo}), Processors: processors,
	})
	if err != nil {
		t.Fatal(err)
	}
	return shutdown, log
}

func TestStartHandsSpansToProcessors(t *testing.T) {
	var r recorder
	shutdown, _ := start(t, nil, &r)
	_, span := otel.Tracer("test").Start(t.Context(), "get")
	span.End()
	if len(r.ended) != 1 || r.ended[0].Name() != "get" {
		t.Fatalf("%v", r.ended)
	}
	var service, version bool
	for _, a := range r.ended[0].Resource().Attributes() {
		service = service || a.Key == "service.name" && a.Value.AsString() == "kai"
		version = version || a.Key == "service.version" && a.Value.AsString() == "v1"
	}
	if !service || !version {
		t.Errorf("resource %v", r.ended[0].Resource())
	}
	for range 2 {
		if err := shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if r.stops != 1 {
		t.Errorf("stopped %d times", r.stops)
	}
}

func TestStartWithoutProcessorsGivesIdsOnly(t *testing.T) {
	shutdown, _ := start(t, map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
	_, span := otel.Tracer("test").Start(t.Context(), "get")
	if !span.SpanContext().IsValid() || span.IsRecording() {
		t.Errorf("%v, recording %v", span.SpanContext(), span.IsRecording())
	}
	if err := shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStartDisabled(t *testing.T) {
	var r recorder
	shutdown, _ := start(t, map[string]string{"OTEL_SDK_DISABLED": "True"}, &r)
	_, span := otel.Tracer("test").Start(t.Context(), "get")
	span.End()
	if span.SpanContext().IsValid() || len(r.ended) != 0 {
		t.Error("the SDK runs though it is disabled")
	}
	if err := shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLoggerAttachesTraceIds(t *testing.T) {
	var log strings.Builder
	l := NewLogger(&log, LogOptions{Level: slog.LevelInfo}).With("node", "n1")
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	l.InfoContext(trace.ContextWithSpanContext(t.Context(), span), "slow request", "error", errors.New("late"))
	l.Debug("hidden")
	var line map[string]any
	if err := json.Unmarshal([]byte(log.String()), &line); err != nil {
		t.Fatalf("%v in %s", err, log.String())
	}
	if line["trace_id"] != span.TraceID().String() || line["span_id"] != span.SpanID().String() || line["node"] != "n1" || line["error"] != "late" {
		t.Error(line)
	}
	log.Reset()
	l.Info("plain")
	if strings.Contains(log.String(), "trace_id") {
		t.Error(log.String())
	}
}

func TestLoggerWithholdsWhatClientsStore(t *testing.T) {
	for _, text := range []bool{true, false} {
		var log strings.Builder
		l := NewLogger(&log, LogOptions{Level: slog.LevelDebug, Text: text})
		l.With("key", "k-secret").WithGroup("record").Debug("m", "value", []byte("v-secret"), "keys", []string{"x-secret"}, "partition", 7)
		if out := log.String(); strings.Contains(out, "secret") || !strings.Contains(out, "partition") {
			t.Error(out)
		}
	}
}

// What Prometheus would read comes by OTLP, with exemplars that name traces in bytes.
func TestProducer(t *testing.T) {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "took_seconds", Help: "How long it took.", Buckets: []float64{1, 2}})
	h.(prometheus.ExemplarObserver).ObserveWithExemplar(1.5, prometheus.Labels{"trace_id": "000102030405060708090a0b0c0d0e0f", "span_id": "0001020304050607"})
	r := prometheus.NewRegistry()
	r.MustRegister(h)
	scopes, err := newProducer(r).Produce(t.Context())
	if err != nil || len(scopes) != 1 || len(scopes[0].Metrics) != 1 {
		t.Fatalf("%v, %v", scopes, err)
	}
	data, ok := scopes[0].Metrics[0].Data.(metricdata.Histogram[float64])
	if !ok || len(data.DataPoints) != 1 || data.DataPoints[0].Count != 1 || len(data.DataPoints[0].Exemplars) != 1 {
		t.Fatalf("%+v", scopes[0].Metrics[0])
	}
	e := data.DataPoints[0].Exemplars[0]
	if len(e.TraceID) != 16 || e.TraceID[15] != 15 || len(e.SpanID) != 8 || e.SpanID[7] != 7 || e.Value != 1.5 {
		t.Errorf("%+v", e)
	}
	if id([]byte("no id"), 8) != nil || len(id(make([]byte, 8), 8)) != 8 {
		t.Error("ids that are none")
	}
}

// What the environment asks for and nobody has is said at once, all of it.
func TestStartRefuses(t *testing.T) {
	try := func(env map[string]string) error {
		before := otel.GetTracerProvider()
		defer otel.SetTracerProvider(before)
		stop, err := Start(t.Context(), Options{Service: "kai", Getenv: func(name string) string { return env[name] }, Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
		if err == nil {
			err = errors.Join(stop(t.Context()), stop(t.Context()))
		}
		return err
	}
	err := try(map[string]string{"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/json", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
	for _, part := range []string{"OTEL_TRACES_EXPORTER", "zipkin", "http/json", "grpc"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
	if err := try(map[string]string{"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}); err != nil {
		t.Errorf("/metrics is there: %v", err)
	}
}
