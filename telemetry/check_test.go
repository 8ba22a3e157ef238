package telemetry

import (
	"slices"
	"testing"
)

func TestCheck(t *testing.T) {
	const to, grpc = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"
	collector := map[string]string{to: "http://collector:4318"}
	good := []map[string]string{
		nil,
		{"OTEL_SDK_DISABLED": "False"},
		{"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "prometheus"},
		{to: " https://collector ", grpc: "grpc"},
		{to: "unix:///run/collector", grpc: "grpc"},
		{"OTEL_TRACES_SAMPLER": "parentbased_TraceIDRatio", "OTEL_TRACES_SAMPLER_ARG": " 0.25"},
		{"OTEL_TRACES_SAMPLER": "always_on", "OTEL_TRACES_SAMPLER_ARG": "not read"},
		{"OTEL_BSP_MAX_QUEUE_SIZE": "10000", "OTEL_SPAN_LINK_COUNT_LIMIT": "-1", "OTEL_METRIC_EXPORT_INTERVAL": "15000"},
		{"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20abc==, x-tenant = 7", "OTEL_EXPORTER_OTLP_TIMEOUT": " 500 "},
		{"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_TRACES_INSECURE": "TRUE"},
	}
	for _, environ := range good {
		for _, base := range []map[string]string{nil, collector} {
			if faults := checkOf(base, environ); len(faults) != 0 {
				t.Errorf("%v: %v", environ, faults)
			}
		}
	}
	bad := map[string][]string{
		"OTEL_SDK_DISABLED":                      {"1", "yes"},
		"OTEL_TRACES_EXPORTER":                   {"zipkin", "prometheus"},
		"OTEL_METRICS_EXPORTER":                  {"console"},
		to:                                       {"collector:4318", "http://", "http://[::1", "ftp://collector"},
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":     {"collector"},
		grpc:                                     {"http/json"},
		"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL":    {"thrift"},
		"OTEL_EXPORTER_OTLP_TIMEOUT":             {"10s", "0"},
		"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION":  {"zstd"},
		"OTEL_EXPORTER_OTLP_INSECURE":            {"on"},
		"OTEL_TRACES_SAMPLER":                    {"jaeger_remote"},
		"OTEL_BSP_SCHEDULE_DELAY":                {"5s", "-1", " 5 "},
		"OTEL_BSP_MAX_QUEUE_SIZE":                {"many"},
		"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": {"1k"},
		"OTEL_METRIC_EXPORT_INTERVAL":            {"60s"},
	}
	for variable, values := range bad {
		for _, value := range values {
			faults := checkOf(collector, map[string]string{variable: value})
			if len(faults) != 1 || faults[0].Variable != variable || faults[0].Problem == "" || faults[0].Fix == "" {
				t.Errorf("%s=%q: %+v", variable, value, faults)
			}
			if faults := checkOf(collector, map[string]string{variable: value, "OTEL_SDK_DISABLED": "true"}); variable != "OTEL_SDK_DISABLED" && len(faults) != 0 {
				t.Errorf("disabled, and still: %v", faults)
			}
		}
	}
	for _, share := range []string{"25%", "1.5", "-0.1"} {
		if faults := checkOf(collector, map[string]string{"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": share}); len(faults) != 1 || faults[0].Variable != "OTEL_TRACES_SAMPLER_ARG" {
			t.Errorf("a share of %s: %v", share, faults)
		}
	}
	for _, headers := range []string{"token", "=token", "na me=token", "name=%zz", "a=b,"} {
		faults := checkOf(collector, map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": headers})
		if len(faults) != 1 || faults[0].Value != "***" {
			t.Errorf("headers %q: %v", headers, faults)
		}
	}
}

// Where nothing is exported nobody reads them; all that is wrong is told together, each fault once.
func TestCheckTellsAll(t *testing.T) {
	wrong := map[string]string{"OTEL_BSP_SCHEDULE_DELAY": "5s", "OTEL_TRACES_SAMPLER": "some", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
	if faults := checkOf(nil, wrong); len(faults) != 0 {
		t.Errorf("nothing is exported, and still: %v", faults)
	}
	var variables []string
	for _, f := range checkOf(wrong, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector"}) {
		variables = append(variables, f.Variable)
	}
	if !slices.Equal(variables, []string{"OTEL_BSP_SCHEDULE_DELAY", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_TRACES_SAMPLER"}) {
		t.Errorf("%v", variables)
	}
}

func checkOf(base, more map[string]string) []Fault {
	return Check(func(name string) string {
		if value, ok := more[name]; ok {
			return value
		}
		return base[name]
	})
}
