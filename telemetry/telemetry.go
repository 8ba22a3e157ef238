// Package telemetry starts and stops the OpenTelemetry SDK, and makes the logger of a process. It
// imports nothing of Kai; everything else of Kai uses the OpenTelemetry API only.
//
// Spans are not exported yet. The OTLP exporter over HTTP costs 6.6 MB of binary and eight modules
// (measured with v1.47.0: 13.9 MB against 7.2 MB for a program with net/http and the SDK), so it
// comes with the traces that are worth sending. Until then the SDK hands out trace ids, which the
// logger writes, and carries those of callers on.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// Options describes the process to the SDK.
type Options struct {
	// Service and Version become service.name and service.version, unless OTEL_SERVICE_NAME or
	// OTEL_RESOURCE_ATTRIBUTES say otherwise.
	Service, Version string
	// Getenv looks a variable of the environment up: OTEL_SDK_DISABLED and the OTLP endpoints. The SDK
	// itself reads the rest (OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES, …) from the process.
	Getenv func(string) string
	// Logger hears of problems of the SDK.
	Logger *slog.Logger
	// Processors see sampled spans. Without any, spans have ids but record nothing.
	Processors []sdktrace.SpanProcessor
}

// Start makes the SDK the process's tracer provider, propagator and error handler, unless
// OTEL_SDK_DISABLED is true. It does not block and connects to nothing. shutdown, which is never
// nil, flushes the processors and closes them; calls after the first do nothing.
func Start(ctx context.Context, o Options) (shutdown func(context.Context) error, err error) {
	nothing := func(context.Context) error { return nil }
	if strings.EqualFold(strings.TrimSpace(o.Getenv("OTEL_SDK_DISABLED")), "true") {
		return nothing, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if o.Getenv(name) != "" {
			o.Logger.Warn("this build does not export traces", "variable", name)
		}
	}
	res, err := describe(ctx, o)
	if err != nil {
		return nothing, err
	}
	settings := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	if len(o.Processors) == 0 {
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
	return func(ctx context.Context) error {
		if err := provider.Shutdown(ctx); err != nil {
			return fmt.Errorf("stop telemetry: %w", err)
		}
		return nil
	}, nil
}

// describe makes the resource; what the environment says wins over o.
func describe(ctx context.Context, o Options) (*resource.Resource, error) {
	res, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", o.Service), attribute.String("service.version", o.Version)),
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
