package telemetry

import (
	"context"
	"encoding/hex"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// producer has the numbers that Prometheus would read, for OTLP.
type producer struct{ sdkmetric.Producer }

func newProducer(from prometheus.Gatherer) producer {
	return producer{bridge.NewMetricProducer(bridge.WithGatherer(from))}
}

// Produce implements sdkmetric.Producer. The bridge (0.72 as well) leaves ids of exemplars in hexadecimal, which collectors refuse, and with them all that was
// sent: they are to be 16 and 8 bytes.
func (p producer) Produce(ctx context.Context) ([]metricdata.ScopeMetrics, error) {
	scopes, err := p.Producer.Produce(ctx)
	for _, scope := range scopes {
		for _, m := range scope.Metrics {
			h, ok := m.Data.(metricdata.Histogram[float64])
			if !ok {
				continue
			}
			for i := range h.DataPoints {
				for k := range h.DataPoints[i].Exemplars {
					e := &h.DataPoints[i].Exemplars[k]
					e.TraceID, e.SpanID = id(e.TraceID, 16), id(e.SpanID, 8)
				}
			}
		}
	}
	return scopes, err
}

// id is b if it has n bytes, or those that it names in hexadecimal; else nil.
func id(b []byte, n int) []byte {
	if decoded := make([]byte, n); len(b) == 2*n {
		if _, err := hex.Decode(decoded, b); err == nil {
			return decoded
		}
	}
	if len(b) == n {
		return b
	}
	return nil
}
