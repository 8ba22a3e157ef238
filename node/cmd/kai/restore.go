package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"kai/backup"
	"kai/node/console"
	"kai/node/flight"
	"kai/node/ring"
)

func (a app) backupRestoreCommand() *cobra.Command {
	var q bucket
	var ask ask
	var o output
	var key, prefix string
	var partition int
	var partial, older, overwrite bool
	cmd := &cobra.Command{
		Use: "restore [SNAPSHOT]", Short: "Bring records of a snapshot back into a cluster, the newest if none is named", Args: cobra.MaximumNArgs(1),
		Long: `Bring records back into a cluster of any size, through any of its nodes. Each enters as a mutation that is
refused if what is there is newer, be it a value or a deletion: so it may be done while clients write, and again after it failed. A cas token
is a new one. What expires needs KAI_EXPIRATION.

A cluster takes back only its newest snapshot: what was deleted after an older one may be forgotten by now, and would come back. --older takes it all
the same; better restore it into an empty cluster, or only what is lost (--key, --prefix). --overwrite goes back to what the snapshot has, over
what is newer; keys that it does not have stay.

Exit codes: 0 done; 1 failed, or partitions were left out; 2 wrong usage; 3 no node answers.`,
		Example: `  kai backup restore --admin 10.0.0.5:11214
  kai backup restore 20261125T180000Z --key user:17 --overwrite`,
	}
	q.addTo(cmd)
	ask.addTo(cmd, 5*time.Second)
	o.addTo(cmd)
	cmd.Flags().StringVar(&key, "key", "", "only this key")
	cmd.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with this")
	cmd.Flags().IntVar(&partition, "partition", -1, "only this partition of the snapshot")
	cmd.Flags().BoolVar(&partial, "partial", false, "leave out partitions that are damaged, and name them, instead of stopping there")
	cmd.Flags().BoolVar(&older, "older", false, "take a snapshot that is not the cluster's newest; deleted keys may come back")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "go back to the snapshot: over newer values and deletions, too")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := a.traced(cmd.Context())
		b, m, err := a.openSnapshot(ctx, q, args)
		if err != nil {
			return err
		}
		defer b.Close()
		if partition >= m.Partitions {
			return failed{exitUsage, fmt.Errorf("the snapshot has %d partitions", m.Partitions)}
		}
		client, err := a.client(ask)
		if err != nil {
			return err
		}
		asking, cancel := context.WithTimeout(ctx, ask.timeout)
		st, err := client.Status(asking)
		cancel()
		if err != nil {
			return unanswered(err)
		}
		release, err := backup.Pin(ctx, b, m, "restore")
		if err != nil {
			return failed{exitFailure, err}
		}
		defer release()
		newest, err := newestOf(ctx, b, m.Cluster)
		if err != nil {
			return err
		}
		if !older && !overwrite && m.Cluster == st.Cluster.ID && newest.Snapshot != m.Snapshot {
			return failed{exitUsage, fmt.Errorf("%s is not the newest snapshot of this cluster, %s is: what was deleted between may come back; --older restores it all the same", m.Snapshot, newest.Snapshot)}
		}
		own := -1
		if key != "" {
			own = int(ring.PartitionOf(ring.Hash([]byte(key)), m.Partitions))
		}
		to := newSender(client, func(k []byte) bool {
			return (key == "" || string(k) == key) && strings.HasPrefix(string(k), prefix)
		})
		to.overwrite = overwrite
		seen := map[int]bool{}
		done, err := backup.Restore(ctx, b, m, func(p int) bool {
			return (partition < 0 || p == partition) && (own < 0 || p == own)
		}, partial, func(_ context.Context, p int, items []backup.Item) error {
			if !seen[p] {
				seen[p] = true
				a.progress(fmt.Sprintf("%d of %d partitions", len(seen), m.Partitions), false)
			}
			return to.take(ctx, items) // what it sends goes on when this returns
		})
		if last := to.close(ctx); err == nil {
			err = last
		}
		a.progress("", true)
		v := shownRestore{Faults: []string{}, Snapshot: m.Snapshot, Restoration: to.done, Partitions: done.Partitions, Fetched: done.Fetched}
		for _, f := range done.Faults {
			v.Faults = append(v.Faults, f.String())
		}
		if o.format == formatJSON {
			if err := printJSON(a.stdout, v); err != nil {
				return err
			}
		} else {
			p := a.printer()
			for _, f := range v.Faults {
				p.line(p.bad(f))
			}
			p.line(fmt.Sprintf("snapshot %s: %d records brought back, %d are there as new or newer, %d deleted or expired", m.Snapshot, v.Restored, v.Newer, v.Dead))
		}
		if err != nil {
			return failed{exitFailure, err}
		}
		if len(done.Faults) > 0 {
			return failed{exitFailure, fmt.Errorf("%s not brought back as a whole", number(len(done.Faults), "partition was", "partitions were"))}
		}
		return nil
	}
	return cmd
}

// traced has what nodes are asked for be one trace: that of TRACEPARENT, if a job that is traced itself has set it, else a new one.
func (a app) traced(ctx context.Context) context.Context {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": a.environ["TRACEPARENT"]})
	if trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, flight.NewContext().Remote())
}

// shownRestore is what restore prints.
type shownRestore struct {
	Snapshot string `json:"snapshot"`
	console.Restoration
	Partitions int      `json:"partitions"` // that came back as a whole
	Fetched    int64    `json:"fetched"`    // bytes
	Faults     []string `json:"faults"`
}
