package telemetry

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Fault is one thing wrong with OpenTelemetry's variables.
type Fault struct {
	// Variable and Value are as in the environment; Value is masked if it is secret.
	Variable, Value string
	// Problem says what is wrong with the value, Fix what to do.
	Problem, Fix string
}

// Error says the same in one line.
func (f Fault) Error() string {
	return fmt.Sprintf("telemetry: %s=%q: %s; %s", f.Variable, f.Value, f.Problem, f.Fix)
}

// Check returns every fault of OpenTelemetry's variables, by name. The SDK goes on with its defaults where it
// cannot read a value, and says so nowhere or too late; who set it would look for spans in vain.
//
// With OTEL_SDK_DISABLED nothing is read, so nothing is wrong; the SDK's numbers and the exporters'
// settings are looked at only where something is exported. Files of certificates are not.
func Check(getenv func(string) string) []Fault {
	c := checker{getenv: getenv}
	if isTrue(getenv("OTEL_SDK_DISABLED")) {
		return nil
	}
	c.check("is neither true nor false", "set true or false", isBool, "OTEL_SDK_DISABLED")
	traces, metrics := c.signal("TRACES"), c.signal("METRICS")
	if traces {
		c.sampler()
		c.check("is not a number of milliseconds", "set a whole number above 0, without a unit", isCount, "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT")
		c.check("is not a number of spans", "set a whole number above 0", isCount, "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE")
		c.check("is not a number", "set a whole number; a negative one means no limit", isWhole, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
			"OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT", "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT")
		c.exporter("OTEL_EXPORTER_OTLP_TRACES_")
	}
	if metrics {
		c.check("is not a number of milliseconds", "set a whole number above 0, without a unit", isCount, "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT")
		c.exporter("OTEL_EXPORTER_OTLP_METRICS_")
	}
	if traces || metrics {
		c.exporter("OTEL_EXPORTER_OTLP_")
	}
	slices.SortFunc(c.faults, func(a, b Fault) int { return strings.Compare(a.Variable, b.Variable) })
	return slices.Compact(c.faults) // one variable may be wrong for both signals
}

type checker struct {
	getenv func(string) string
	faults []Fault
}

// get is the value of a variable as it is read: the SDK's own numbers as they are, all else without the white space around it.
func (c *checker) get(name string) string {
	value := c.getenv(name)
	if strings.HasPrefix(name, "OTEL_BSP_") || strings.HasPrefix(name, "OTEL_METRIC_") || strings.HasSuffix(name, "_LIMIT") {
		return value
	}
	return strings.TrimSpace(value)
}

// check finds fault with those variables whose values are not ok.
func (c *checker) check(problem, fix string, ok func(string) bool, variables ...string) {
	for _, v := range variables {
		if value := c.get(v); value != "" && !ok(value) {
			c.faults = append(c.faults, Fault{v, value, problem, fix})
		}
	}
}

// signal reports whether TRACES or METRICS are exported.
func (c *checker) signal(signal string) bool {
	how, fault := protocol(c.getenv, signal)
	if fault != nil {
		c.faults = append(c.faults, *fault)
	}
	return how != "" || fault != nil
}

func (c *checker) sampler() {
	const sampler, arg = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
	switch strings.ToLower(c.get(sampler)) {
	case "", "always_on", "always_off", "parentbased_always_on", "parentbased_always_off":
	case "traceidratio", "parentbased_traceidratio":
		c.check("is not a share", "set a number from 0 to 1", isShare, arg)
	default:
		c.check("is a sampler that this build does not know", "set always_on, always_off, traceidratio, or one of them behind parentbased_",
			func(string) bool { return false }, sampler)
	}
}

// exporter looks at the variables of a signal, or of all signals, which begin with prefix.
func (c *checker) exporter(prefix string) {
	c.check("is not a URL of a collector", "set one with its scheme, such as http://collector:4318", isEndpoint, prefix+"ENDPOINT")
	c.check("is not a number of milliseconds", "set a whole number above 0, without a unit", isCount, prefix+"TIMEOUT")
	c.check("is no compression that this build knows", "set gzip or none", isCompression, prefix+"COMPRESSION")
	c.check("is neither true nor false", "set true or false", isBool, prefix+"INSECURE")
	if v := prefix + "HEADERS"; c.get(v) != "" && !areHeaders(c.get(v)) { // with tokens, as a rule
		c.faults = append(c.faults, Fault{v, "***", "is not a list of headers", "set name=value, more of them behind commas, each value encoded as in a URL"})
	}
}

func isTrue(s string) bool { return strings.EqualFold(strings.TrimSpace(s), "true") }
func isBool(s string) bool { return isTrue(s) || strings.EqualFold(s, "false") }

func isWhole(s string) bool { _, err := strconv.Atoi(s); return err == nil }
func isCount(s string) bool { n, err := strconv.Atoi(s); return err == nil && n > 0 }

func isShare(s string) bool {
	f, err := strconv.ParseFloat(s, 64)
	return err == nil && f >= 0 && f <= 1
}

func isCompression(s string) bool { return s == "gzip" || s == "none" }

func isEndpoint(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	switch strings.ToLower(u.Scheme) {
	case "http", "https":
		return u.Hostname() != ""
	case "unix":
		return cmp.Or(u.Host, u.Path) != ""
	}
	return false
}

func areHeaders(s string) bool {
	for _, header := range strings.Split(s, ",") {
		name, value, ok := strings.Cut(header, "=")
		if _, err := url.PathUnescape(value); !ok || err != nil || !isToken(strings.TrimSpace(name)) {
			return false
		}
	}
	return true
}

// isToken reports whether s can be the name of a header (RFC 9110, 5.6.2).
func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) }) < 0
}
