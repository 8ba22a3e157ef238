package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"kai/backup"
	"kai/node"
	"kai/node/console"
)

// shownSeal is what seal prints.
type shownSeal struct {
	Cluster    string    `json:"cluster"`
	Generation uint32    `json:"generation"`
	Snapshot   string    `json:"snapshot"`
	Cut        time.Time `json:"cut"`
	Records    int64     `json:"records"`
	Lost       bool      `json:"lost"`
}

// sealFlags are those of kai backup seal.
type sealFlags struct {
	bucket
	ask
	output
	confirm string
	lost    bool
	undo    bool
	wait    time.Duration
}

func (a app) backupSealCommand() *cobra.Command {
	var f sealFlags
	cmd := &cobra.Command{
		Use: "seal", Short: "End a cluster with a last snapshot, which the next one begins with", Args: cobra.MaximumNArgs(1),
		Long: `End this generation of a cluster. Its nodes take no writes any more, and then a last snapshot, which has everything;
the bucket gets a seal that names it, and the nodes serve no more. Stop them then. Nodes with empty disks, as many as you
like, that are started with the same KAI_CLUSTER and KAI_BACKUP_URL found the next generation, load that snapshot, and serve. If it fails
before the seal is written, the nodes take writes again.

With --lost [SNAPSHOT] no node is asked: all of them are lost for good, with their disks. The next generation begins with that snapshot,
or with the newest complete one; what was written after its cut is lost. Nodes of the old generation that do come back serve
no more, once they have seen the seal.`,
		Example: `  kai backup seal --confirm kai
  kai backup seal --lost --confirm kai`,
	}
	f.bucket.addTo(cmd)
	f.ask.addTo(cmd, 10*time.Second)
	f.output.addTo(cmd)
	cmd.Flags().StringVar(&f.confirm, "confirm", "", "name of the cluster (KAI_CLUSTER): end it")
	cmd.Flags().BoolVar(&f.lost, "lost", false, "all nodes are lost: ask none")
	cmd.Flags().BoolVar(&f.undo, "undo", false, "have nodes take writes again, after a seal that was interrupted")
	cmd.Flags().DurationVar(&f.wait, "wait", time.Hour, "longest time to wait for the last snapshot")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !f.lost && len(args) > 0 {
			return failed{exitUsage, errors.New("a snapshot is named only with --lost: without, a new one is taken")}
		}
		if f.undo { // the nodes look into the bucket themselves
			return a.unseal(cmd.Context(), f)
		}
		b, err := a.bucket(cmd.Context(), f.bucket)
		if err != nil {
			return err
		}
		defer b.Close()
		end := a.sealLive
		if f.lost {
			end = func(ctx context.Context, b *backup.Bucket, f sealFlags) (shownSeal, error) {
				return a.sealLost(ctx, b, f, strings.Join(args, ""))
			}
		}
		done, err := end(cmd.Context(), b, f)
		if err != nil {
			return err
		}
		if f.format == formatJSON {
			return printJSON(a.stdout, done)
		}
		a.printer().line(fmt.Sprintf("generation %d of the cluster has ended; the next begins with snapshot %s: %d records, cut %s ago. Nodes with empty disks found it.",
			done.Generation, done.Snapshot, done.Records, time.Since(done.Cut).Round(time.Second)))
		return nil
	}
	return cmd
}

// unseal has the nodes of a cluster take writes again.
func (a app) unseal(ctx context.Context, f sealFlags) error {
	client, err := a.client(f.ask)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	st, err := client.Status(asking)
	if err != nil {
		return unanswered(err)
	}
	var nodes []console.Client
	for _, o := range st.Nodes {
		if o.Alive {
			nodes = append(nodes, console.Client{Addr: o.AdminAddr})
		}
	}
	if err := a.openNodes(ctx, st.Cluster.ID, nodes, f.timeout); err != nil {
		return failed{exitFailure, err}
	}
	a.printer().line(fmt.Sprintf("%s take writes", number(len(nodes), "node", "nodes")))
	return nil
}

// generation is the one of that name which has not ended; who only looks is told what would be ended.
func generation(ctx context.Context, b *backup.Bucket, name, confirm string) (*backup.Founded, error) {
	g, sealed, err := backup.Generations(ctx, b, name)
	switch {
	case err != nil:
		return nil, failed{exitFailure, err}
	case g == nil:
		return nil, failed{exitFailure, fmt.Errorf("the bucket knows no cluster %q: its nodes register it when they have this KAI_BACKUP_URL", name)}
	case sealed != nil:
		return nil, failed{exitFailure, fmt.Errorf("generation %d of cluster %q has ended already, with snapshot %q: nodes with empty disks found the next", g.Generation, name, sealed.Snapshot)}
	case confirm != name:
		return nil, failed{exitUsage, fmt.Errorf("this ends generation %d of cluster %q (%s), founded %s: if that is what you want, say --confirm %s", g.Generation, name, g.Cluster, g.At.Format(time.RFC3339), name)}
	}
	return g, nil
}

// sealLost ends a cluster whose nodes are lost.
func (a app) sealLost(ctx context.Context, b *backup.Bucket, f sealFlags, snapshot string) (done shownSeal, err error) {
	c, err := node.Load(a.environ)
	if err != nil {
		return done, failed{exitUsage, err}
	}
	g, err := generation(ctx, b, c.Cluster, f.confirm)
	if err != nil {
		return done, err
	}
	var m *backup.Manifest
	if snapshot != "" {
		if m, err = find(ctx, b, snapshot); err != nil {
			return done, err
		}
	} else {
		newest, err := newestOf(ctx, b, g.Cluster)
		if err != nil {
			return done, err
		}
		if m = newest.Manifest; m == nil {
			return done, failed{exitFailure, fmt.Errorf("there is no complete snapshot of cluster %s: name one of another, or start over with another KAI_CLUSTER", g.Cluster)}
		}
	}
	return writeSeal(ctx, b, c.Cluster, g, m, true)
}

func writeSeal(ctx context.Context, b *backup.Bucket, name string, g *backup.Founded, m *backup.Manifest, lost bool) (done shownSeal, err error) {
	s, err := backup.Seal(ctx, b, name, backup.Sealed{Generation: g.Generation, Cluster: g.Cluster, Snapshot: m.Snapshot, At: time.Now().UTC(), Lost: lost})
	if err != nil {
		return done, failed{exitFailure, fmt.Errorf("it is not known whether the seal was written: %w; kai status of a node tells, or do it again", err)}
	}
	if s.Snapshot != m.Snapshot {
		return done, failed{exitFailure, fmt.Errorf("somebody else has ended the cluster meanwhile, with snapshot %s", s.Snapshot)}
	}
	v := showSnapshot(backup.Summary{Begin: m.Begin, Manifest: m})
	return shownSeal{g.Cluster, g.Generation, m.Snapshot, m.Cut, v.Records, lost}, nil
}

// sealLive ends a cluster that serves.
func (a app) sealLive(ctx context.Context, b *backup.Bucket, f sealFlags) (done shownSeal, err error) {
	client, err := a.client(f.ask)
	if err != nil {
		return done, err
	}
	status := func(ctx context.Context) (console.Status, error) {
		ctx, cancel := context.WithTimeout(ctx, f.timeout)
		defer cancel()
		st, err := client.Status(ctx)
		if err != nil {
			return st, unanswered(err)
		}
		return st, nil
	}
	st, err := status(ctx)
	if err != nil {
		return done, err
	}
	g, err := generation(ctx, b, st.Cluster.Name, f.confirm)
	if err != nil {
		return done, err
	}
	if g.Cluster != st.Cluster.ID {
		return done, failed{exitFailure, fmt.Errorf("the node is of cluster %s, and the bucket's generation %d of this name is %s", st.Cluster.ID, g.Generation, g.Cluster)}
	}
	until := time.Now().Add(f.wait)
	var nodes []console.Client // that were told
	undo := func() {
		// Ctrl-C must not leave them so.
		if err := a.openNodes(context.WithoutCancel(ctx), g.Cluster, nodes, f.timeout); err != nil {
			_, _ = fmt.Fprintln(a.stderr, err)
		}
	}
	// What moves could not go on, and no snapshot has what moves: so when nothing does. A move may begin in between: then again.
	for {
		for st.Moving > 0 {
			a.progress(fmt.Sprintf("%d partitions move", st.Moving), false)
			if time.Now().After(until) {
				return done, failed{exitFailure, fmt.Errorf("partitions still move after %s", f.wait)}
			}
			select {
			case <-ctx.Done():
				return done, failed{exitFailure, ctx.Err()}
			case <-time.After(time.Second):
			}
			if st, err = status(ctx); err != nil {
				return done, err
			}
		}
		if nodes, err = alive(st); err != nil {
			return done, err
		}
		a.progress("nodes are being sealed", false)
		if err = sealNodes(ctx, g.Cluster, nodes, f.timeout); err == nil {
			if st, err = status(ctx); err == nil && st.Moving == 0 {
				break
			}
		}
		undo()
		if err != nil {
			return done, err
		}
	}
	name := fmt.Sprintf("sealed-%d-%s", g.Generation, time.Now().UTC().Format("20060102T150405Z"))
	begin := backup.Begin{Cluster: g.Cluster, Snapshot: name, Partitions: st.Cluster.Partitions, Leaves: node.BackupLeaves}
	if err := backup.Announce(ctx, b, &begin, node.BackupPatience); err != nil {
		undo()
		return done, failed{exitFailure, err}
	}
	m, err := a.awaitSnapshot(ctx, b, name, st.Cluster.Partitions, time.Until(until))
	if err != nil {
		undo()
		return done, err
	}
	if done, err = writeSeal(ctx, b, st.Cluster.Name, g, m, false); err != nil {
		return done, err // they stay sealed: the seal may be there
	}
	for _, c := range nodes {
		ending, cancel := context.WithTimeout(ctx, f.timeout)
		if _, err := c.Seal(ending, g.Cluster, console.SealEnded); err != nil {
			_, _ = fmt.Fprintf(a.stderr, "node %s will see the seal later: %v\n", c.Addr, err)
		}
		cancel()
	}
	return done, nil
}

// alive returns the nodes that are. So many must be that the others make no write quorum of any partition, and that the snapshot has what was
// acknowledged.
func alive(st console.Status) (nodes []console.Client, err error) {
	var n, r, w int
	if _, err := fmt.Sscanf(st.Cluster.Quorum, "%d:%d:%d", &n, &r, &w); err != nil {
		return nil, failed{exitFailure, fmt.Errorf("quorum %q of the cluster: %w", st.Cluster.Quorum, err)}
	}
	away := 0
	for _, o := range st.Nodes {
		switch {
		case o.Alive:
			nodes = append(nodes, console.Client{Addr: o.AdminAddr})
		case o.Partitions > 0:
			away++
		}
	}
	if away > n-w || away >= w {
		return nil, failed{exitFailure, fmt.Errorf("%d nodes that hold partitions are away: start them, or wait until they are replaced", away)}
	}
	return nodes, nil
}

// sealNodes seals nodes: all are quiet, then all are alike, then none takes a proposal.
func sealNodes(ctx context.Context, cluster string, nodes []console.Client, timeout time.Duration) error {
	each := func(what string, timeout time.Duration, ask func(context.Context, console.Client) (console.Sealing, error)) error {
		all, ctx := errgroup.WithContext(ctx)
		for _, c := range nodes {
			all.Go(func() error {
				ctx, cancel := context.WithTimeout(ctx, timeout)
				defer cancel()
				if _, err := ask(ctx, c); err != nil {
					return failed{exitFailure, fmt.Errorf("node %s is not %s: %w", c.Addr, what, err)}
				}
				return nil
			})
		}
		return all.Wait()
	}
	state := func(to console.SealState) func(context.Context, console.Client) (console.Sealing, error) {
		return func(ctx context.Context, c console.Client) (console.Sealing, error) { return c.Seal(ctx, cluster, to) }
	}
	if err := each("quiet", timeout, state(console.SealQuiet)); err != nil {
		return err
	}
	if err := each("settled", settleWait, func(ctx context.Context, c console.Client) (console.Sealing, error) { return c.Settle(ctx, cluster) }); err != nil {
		return err
	}
	return each("sealed", timeout, state(console.SealSet))
}

// settleWait is longer than a node takes to say that its replicas are not alike.
const settleWait = 3 * time.Minute

// openNodes has nodes take writes again.
func (a app) openNodes(ctx context.Context, cluster string, nodes []console.Client, timeout time.Duration) (err error) {
	for _, c := range nodes {
		one, cancel := context.WithTimeout(ctx, timeout)
		if _, e := c.Seal(one, cluster, console.SealOpen); e != nil {
			err = errors.Join(err, fmt.Errorf("node %s may still refuse writes: %w; kai backup seal --undo tries again", c.Addr, e))
		}
		cancel()
	}
	return err
}
