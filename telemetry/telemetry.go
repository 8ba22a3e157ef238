// Package telemetry starts and stops the OpenTelemetry SDK, and makes the logger of a process. It
// imports nothing of Kai; everything else of Kai uses the OpenTelemetry API only.
//
// Spans and metrics go where OpenTelemetry's own variables say, over OTLP; without an endpoint nowhere.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Options describes the process to the SDK.
type Options struct {
	// Service and Version become service.name and service.version, unless OTEL_SERVICE_NAME or
	// OTEL_RESOURCE_ATTRIBUTES say otherwise.
	Service, Version string
	// Attributes are more of the resource's; what the environment says wins here, too.
	Attributes []attribute.KeyValue
	// Metrics, if not nil, are exported by OTLP, as Prometheus would read them, exemplars included.
	Metrics prometheus.Gatherer
	// Getenv looks a variable of the environment up: OTEL_SDK_DISABLED and the OTLP endpoints. The SDK
	// itself reads the rest (OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES, …) from the process.
	Getenv func(string) string
	// Logger hears of problems of the SDK.
	Logger *slog.Logger
	// IDs, if not nil, knows the ids of a span that is begun with that context; ok=false: any will do.
	IDs func(context.Context) (t trace.TraceID, s trace.SpanID, ok bool)
	// Spans, if not nil, is where spans are counted.
	Spans *Spans
	// Processors see sampled spans, too. Without any, and without an endpoint, spans have ids but record nothing.
	Processors []sdktrace.SpanProcessor
}

// Start makes the SDK the process's tracer provider, propagator and error handler, unless
// OTEL_SDK_DISABLED is true. It does not block and connects to nothing. shutdown, which is never
// nil, flushes the processors and closes them; calls after the first do nothing.
func Start(ctx context.Context, o Options) (shutdown func(context.Context) error, err error) {
	nothing := func(context.Context) error { return nil }
	if isTrue(o.Getenv("OTEL_SDK_DISABLED")) {
		return nothing, nil
	}
	if o.Spans == nil {
		o.Spans = new(Spans)
	}
	exporter, err := newSpanExporter(ctx, o.Getenv)
	metrics, err2 := newMetricExporter(ctx, o.Getenv)
	if err := errors.Join(err, err2); err != nil {
		return nothing, err
	}
	res, err := describe(ctx, o)
	if err != nil {
		return nothing, err
	}
	settings := []sdktrace.TracerProviderOption{sdktrace.WithResource(res), sdktrace.WithIDGenerator(ids{o.IDs})}
	if exporter != nil {
		settings = append(settings, sdktrace.WithSpanProcessor(ended{sdktrace.NewBatchSpanProcessor(counting{exporter, o.Spans}), o.Spans}))
	}
	if len(o.Processors) == 0 && exporter == nil {
		settings = append(settings, sdktrace.WithSampler(sdktrace.NeverSample()))
	}
	for _, p := range o.Processors {
		settings = append(settings, sdktrace.WithSpanProcessor(p))
	}
	provider := sdktrace.NewTracerProvider(settings...)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		o.Logger.Warn("telemetry", "error", err)
	}))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	stop := provider.Shutdown
	if metrics != nil && o.Metrics != nil {
		reader := sdkmetric.NewPeriodicReader(metrics, sdkmetric.WithProducer(newProducer(o.Metrics)))
		meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(res))
		stop = func(ctx context.Context) error { return errors.Join(meters.Shutdown(ctx), provider.Shutdown(ctx)) }
	}
	var once sync.Once
	return func(ctx context.Context) (err error) {
		once.Do(func() { err = stop(ctx) })
		if err != nil {
			return fmt.Errorf("stop telemetry: %w", err)
		}
		return nil
	}, nil
}

// describe makes the resource; what the environment says wins over o.
func describe(ctx context.Context, o Options) (*resource.Resource, error) {
	res, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", o.Service), attribute.String("service.version", o.Version)), resource.WithAttributes(o.Attributes...), resource.WithHost(),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if errors.Is(err, resource.ErrPartialResource) {
		o.Logger.Warn("telemetry: part of the resource is unknown", "error", err)
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("telemetry: describe the process: %w", err)
	}
	return res, nil
}
