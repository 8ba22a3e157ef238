package main

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/attribute"

	"kai/node"
	"kai/node/flight"
	"kai/telemetry"
)

// telemetryStop bounds how long telemetry may take to flush once the node has stopped.
const telemetryStop = 3 * time.Second

func (a app) nodeCommand() *cobra.Command {
	var hints bool
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run a node until SIGINT or SIGTERM (the default command)",
		Long: `Run a node until SIGINT or SIGTERM; a second one ends it at once, which loses
nothing that was acknowledged. Logs go to stderr.

The node serves clients once it belongs to a founded cluster: at once when
KAI_BOOTSTRAP_EXPECT is 1, otherwise when that many nodes have found each other
through KAI_DISCOVERY. "kai healthcheck --wait 1m" waits for it.`,
		Example: `  # one node
  kai node

  # the first of three nodes on one machine
  KAI_BOOTSTRAP_EXPECT=3 KAI_DATA_DIR=./n1 \
    KAI_DISCOVERY=static:127.0.0.1:11213,127.0.0.1:11223,127.0.0.1:11233 kai node`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&hints, "hints", a.terminal, "print how to try the node once it serves (default: on a terminal)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.config()
		if err != nil {
			return err
		}
		return a.runNode(cmd.Context(), c, hints)
	}
	return cmd
}

// spareProcs is how many processors Go uses beyond the machine's cores, unless GOMAXPROCS is set. A
// thread that waits for the disk with each write keeps its place among them for a while, and requests
// must not wait for it: two more, on two cores, are a quarter more requests. Where no thread waits,
// more threads than cores get in each other's way (a fifth more processor time a request), but for a
// node with always that is alone (up to 1.06 times the requests with them).
func spareProcs(c node.Config, self node.Self) int {
	if c.Durability == node.DurabilityAlways && (c.Discovery == "" || !self.SyncsAside) {
		return 2
	}
	return 0
}

// addProcs adds to Go's processors by set, runtime.GOMAXPROCS. It is not called to add none: once
// processors are set, Go no longer follows the container's limit.
func addProcs(spare int, set func(int) int) {
	if spare > 0 {
		set(set(0) + spare)
	}
}

// runNode runs a node and telemetry around it.
func (a app) runNode(ctx context.Context, c node.Config, hints bool) error {
	logger := telemetry.NewLogger(a.stderr, telemetry.LogOptions{Text: c.LogFormat == node.LogText, Level: c.LogLevel})
	var spans telemetry.Spans
	shutdown := func(context.Context) error { return nil }
	identified := func(self node.Self) (err error) {
		if a.environ["GOMAXPROCS"] == "" {
			addProcs(spareProcs(c, self), runtime.GOMAXPROCS)
		}
		shutdown, err = telemetry.Start(ctx, telemetry.Options{
			IDs: flight.SpanIDs, Spans: &spans, Service: "kai", Version: a.version, Attributes: describe(self), Metrics: self.Metrics,
			Logger: logger, Getenv: a.getenv,
		})
		return err
	}
	ready := func() {}
	if hints {
		ready = func() { _, _ = fmt.Fprint(a.stdout, howToTry(c)) }
	}
	err := a.run(ctx, c, node.Options{Logger: logger, Version: a.version, Ready: ready, Identified: identified,
		Spans: func() (ended, exported, failed uint64) {
			return spans.Ended.Load(), spans.Exported.Load(), spans.Failed.Load()
		}})
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), telemetryStop)
	defer cancel()
	if err := shutdown(stop); err != nil {
		logger.Warn("the last spans and metrics were not taken", "error", err) // the node has stopped all the same
	}
	if err != nil {
		return failed{exitFailure, err}
	}
	return nil
}

// describe says who a node is, by OpenTelemetry's names, as far as it is known.
func describe(self node.Self) (all []attribute.KeyValue) {
	for name, value := range map[string]string{
		"service.instance.id": self.ID, "kai.cluster": self.Cluster, "kai.zone": self.Zone,
		"cloud.provider": self.Place.Cloud, "cloud.region": self.Place.Region(), "cloud.availability_zone": self.Place.Zone, "host.id": self.Place.Instance,
	} {
		if value != "" {
			all = append(all, attribute.String(name, value))
		}
	}
	return all
}

// howToTry is what a newcomer may paste.
func howToTry(c node.Config) string {
	host, port, err := net.SplitHostPort(c.Listen.Dial())
	if err != nil { // a ListenAddr always splits
		return ""
	}
	return fmt.Sprintf(`
Kai serves memcache clients on %[1]s. Try, in another terminal:

  printf 'set greeting 0 0 5\r\nhello\r\nget greeting\r\nquit\r\n' | nc %[2]s %[3]s

  the console:  http://%[4]s/
  its health:   curl http://%[4]s/readyz
  to stop:      Ctrl-C

`, c.Listen, host, port, c.AdminListen.Dial())
}
