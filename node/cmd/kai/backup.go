package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gocloud.dev/gcerrors"

	"kai/backup"
	"kai/node"
)

// bucket holds the flag of the commands that open one.
type bucket struct{ url string }

func (q *bucket) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&q.url, "url", "", "the bucket (default: KAI_BACKUP_URL of this environment)")
}

func (a app) bucket(ctx context.Context, q bucket) (*backup.Bucket, error) {
	c, err := node.Load(a.environ)
	if err != nil {
		return nil, failed{exitUsage, err}
	}
	if q.url == "" {
		if q.url = c.BackupURL; q.url == "" {
			return nil, failed{exitUsage, errors.New("no bucket: set KAI_BACKUP_URL, or name one with --url, for example --url file:///var/backups/kai")}
		}
	}
	b, err := node.OpenBucket(ctx, c, q.url, false)
	if err != nil {
		return nil, failed{exitUsage, err}
	}
	return b, nil
}

func (a app) backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Take, list, check, prune, restore snapshots, and practise that",
		Long: `Snapshots lie in a bucket, and come from all nodes together: with KAI_BACKUP_URL set they take one each
KAI_BACKUP_INTERVAL by themselves. These commands need the bucket only, from whatever machine; restore needs a cluster to restore into,
and create needs nodes that look into the bucket.

Exit codes: 0 done; 1 failed, or something is damaged; 2 wrong usage.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.backupListCommand(), a.backupShowCommand(), a.backupVerifyCommand(), a.backupPruneCommand(), a.backupCreateCommand(), a.backupRestoreCommand(), a.backupDrillCommand(), a.backupSealCommand())
	return cmd
}

// shownSnapshot is a snapshot as list and show print it.
type shownSnapshot struct {
	Snapshot   string    `json:"snapshot"`
	State      string    `json:"state"` // complete, under way, given up, unreadable
	Cut        time.Time `json:"cut"`
	Cluster    string    `json:"cluster"`
	Partitions int       `json:"partitions"`
	Done       int       `json:"partitions_done"`
	Records    int64     `json:"records"`
	Bytes      int64     `json:"bytes"`    // of keys and values
	Uploaded   int64     `json:"uploaded"` // that earlier snapshots did not have, compressed
	Packs      int       `json:"packs"`
	PackBytes  int64     `json:"pack_bytes"`
	Parent     string    `json:"parent,omitempty"`
	Error      string    `json:"error,omitempty"`
}

// shownVerify is what verify prints.
type shownVerify struct {
	shownSnapshot
	ReadData bool         `json:"read_data"`
	Faults   []shownFault `json:"faults"`
}

type shownFault struct {
	Object    string `json:"object"`
	Partition int    `json:"partition"`
	Error     string `json:"error"`
}

// shownPrune is what prune prints.
type shownPrune struct {
	Snapshots []string `json:"snapshots"` // removed
	Packs     int      `json:"packs"`     // deleted
	Bytes     int64    `json:"bytes"`
	Condemned int      `json:"condemned"` // packs that nothing needs, which stay for now
	DryRun    bool     `json:"dry_run"`
}

func showSnapshot(s backup.Summary) shownSnapshot {
	v := shownSnapshot{Snapshot: s.Snapshot, Cut: s.Cut, Cluster: s.Cluster, Partitions: s.Partitions, Parent: s.Parent, State: "under way"}
	switch {
	case s.Err != nil:
		v.State, v.Error = "unreadable", s.Err.Error()
	case s.Complete():
		v.State, v.Done = "complete", s.Partitions
		packs := map[backup.PackID]bool{}
		for _, e := range s.Manifest.Entries {
			v.Records, v.Bytes, v.Uploaded = v.Records+e.Records, v.Bytes+e.Bytes, v.Uploaded+e.Uploaded
			for _, p := range e.Packs {
				if !packs[p.ID] {
					packs[p.ID] = true
					v.Packs++
					v.PackBytes += p.Size
				}
			}
		}
	case time.Now().After(s.Expires):
		v.State = "given up"
	}
	return v
}

func (a app) backupListCommand() *cobra.Command {
	var q bucket
	var o output
	cmd := &cobra.Command{Use: "list", Short: "List the snapshots of a bucket, the oldest first", Args: cobra.NoArgs,
		Example: "  kai backup list --url file:///var/backups/kai -o json"}
	q.addTo(cmd)
	o.addTo(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b, err := a.bucket(cmd.Context(), q)
		if err != nil {
			return err
		}
		defer b.Close()
		all, err := backup.List(cmd.Context(), b)
		if err != nil {
			return failed{exitFailure, err}
		}
		shown := []shownSnapshot{}
		rows := [][]string{{"SNAPSHOT", "CLUSTER", "STATE", "AGE", "RECORDS", "SIZE", "UPLOADED", "PACKS"}}
		for _, s := range all {
			v := showSnapshot(s)
			shown = append(shown, v)
			age := "-"
			if !v.Cut.IsZero() {
				age = time.Since(v.Cut).Round(time.Second).String()
			}
			rows = append(rows, []string{v.Snapshot, v.Cluster[:min(len(v.Cluster), 8)], v.State, age, fmt.Sprint(v.Records), mib(v.Bytes), mib(v.Uploaded), fmt.Sprint(v.Packs)})
		}
		if o.format == formatJSON {
			return printJSON(a.stdout, shown)
		}
		a.printer().table(rows)
		return nil
	}
	return cmd
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// find opens a snapshot; without a name, the newest that is complete, if all that are complete are of one cluster: who has lost one
// cluster, and has the next in the same bucket, must not restore the newer, empty one by mistake.
func find(ctx context.Context, b *backup.Bucket, id string) (*backup.Manifest, error) {
	if id != "" {
		m, err := backup.Open(ctx, b, id)
		if gcerrors.Code(err) == gcerrors.NotFound {
			err = fmt.Errorf("there is no complete snapshot %q: kai backup list shows them", id)
		}
		if err != nil {
			return nil, failed{exitFailure, err}
		}
		return m, nil
	}
	all, err := backup.List(ctx, b)
	if err != nil {
		return nil, failed{exitFailure, err}
	}
	var newest *backup.Manifest
	clusters := map[string]*backup.Manifest{}
	for _, s := range all {
		if s.Complete() {
			newest = s.Manifest
			clusters[s.Cluster] = newest
		}
	}
	if len(clusters) > 1 {
		var each []string
		for _, id := range slices.Sorted(maps.Keys(clusters)) {
			each = append(each, fmt.Sprintf("%s of cluster %s", clusters[id].Snapshot, id))
		}
		return nil, failed{exitUsage, fmt.Errorf("the bucket has snapshots of several clusters: name one; the newest are %s", strings.Join(each, ", "))}
	}
	if newest == nil {
		return nil, failed{exitFailure, errors.New("there is no complete snapshot in the bucket")}
	}
	return newest, nil
}

// newestOf returns the newest complete snapshot of a cluster that has one.
func newestOf(ctx context.Context, b *backup.Bucket, cluster string) (newest backup.Summary, err error) {
	all, err := backup.List(ctx, b)
	if err != nil {
		return newest, failed{exitFailure, err}
	}
	for _, s := range all {
		if s.Complete() && s.Cluster == cluster {
			newest = s
		}
	}
	return newest, nil
}

// openSnapshot opens the bucket, and in it the snapshot that args name, or the newest. The caller closes the bucket.
func (a app) openSnapshot(ctx context.Context, q bucket, args []string) (*backup.Bucket, *backup.Manifest, error) {
	b, err := a.bucket(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	m, err := find(ctx, b, strings.Join(args, ""))
	if err != nil {
		_ = b.Close()
		return nil, nil, err
	}
	return b, m, nil
}

func (a app) backupShowCommand() *cobra.Command {
	var q bucket
	var o output
	cmd := &cobra.Command{Use: "show [SNAPSHOT]", Short: "Show one snapshot, the newest if none is named", Args: cobra.MaximumNArgs(1)}
	q.addTo(cmd)
	o.addTo(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		b, m, err := a.openSnapshot(cmd.Context(), q, args)
		if err != nil {
			return err
		}
		defer b.Close()
		v := showSnapshot(backup.Summary{Begin: m.Begin, Manifest: m})
		if o.format == formatJSON {
			return printJSON(a.stdout, v)
		}
		a.printer().facts([][2]string{
			{"snapshot", v.Snapshot}, {"cluster", v.Cluster}, {"cut", v.Cut.Format(time.RFC3339)}, {"complete after", m.Completed.Sub(m.Cut).Round(time.Millisecond).String()},
			{"partitions", fmt.Sprint(v.Partitions)}, {"records", fmt.Sprint(v.Records)}, {"keys and values", mib(v.Bytes)},
			{"uploaded for it", mib(v.Uploaded)}, {"packs", fmt.Sprintf("%d, %s", v.Packs, mib(v.PackBytes))}, {"parent", v.Parent},
		})
		return nil
	}
	return cmd
}

func (a app) backupVerifyCommand() *cobra.Command {
	var q bucket
	var o output
	var data bool
	cmd := &cobra.Command{
		Use: "verify [SNAPSHOT]", Short: "Check that a snapshot is whole, the newest if none is named", Args: cobra.MaximumNArgs(1),
		Long: `Check that a snapshot is whole: its manifest and tables, and that all packs are there, with their sizes. With
--read-data every pack is read, and every record taken out of it. Damage is named object by object, and the exit code is 1.`,
	}
	q.addTo(cmd)
	o.addTo(cmd)
	cmd.Flags().BoolVar(&data, "read-data", false, "read and check everything")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		b, m, err := a.openSnapshot(cmd.Context(), q, args)
		if err != nil {
			return err
		}
		defer b.Close()
		faults, err := backup.Verify(cmd.Context(), b, m, data, func(done, of int) { a.progress(fmt.Sprintf("%d of %d packs", done, of), done == of) })
		if err != nil {
			return failed{exitFailure, err}
		}
		v := showSnapshot(backup.Summary{Begin: m.Begin, Manifest: m})
		p := a.printer()
		if o.format == formatJSON {
			shown := shownVerify{shownSnapshot: v, ReadData: data, Faults: []shownFault{}}
			for _, f := range faults {
				shown.Faults = append(shown.Faults, shownFault{f.Object, f.Partition, f.Err.Error()})
			}
			if err := printJSON(a.stdout, shown); err != nil {
				return err
			}
		} else {
			for _, f := range faults {
				p.line(p.bad(f.String()))
			}
		}
		if len(faults) > 0 {
			return failed{exitFailure, fmt.Errorf("snapshot %s is damaged: %s", m.Snapshot, number(len(faults), "fault", "faults"))}
		}
		if o.format == formatJSON {
			return nil
		}
		p.line(p.good(fmt.Sprintf("snapshot %s is whole: %d records in %s", m.Snapshot, v.Records, number(v.Packs, "pack", "packs"))))
		return nil
	}
	return cmd
}

// progress shows a line on a terminal, in place of the one before; elsewhere nothing.
func (a app) progress(line string, last bool) {
	if !a.terminal {
		return
	}
	end := ""
	if last {
		end = "\r\x1b[K"
	}
	_, _ = fmt.Fprint(a.stdout, "\r"+line+"\x1b[K"+end)
}

func (a app) backupPruneCommand() *cobra.Command {
	var q bucket
	var out output
	o := backup.PruneOptions{}
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove old snapshots, and what nothing needs any more", Args: cobra.NoArgs,
		Long: `Remove complete snapshots but for the newest of each cluster, those that were given up, and packs that nothing has needed for the grace,
twice over. Nodes do it by themselves. It is safe beside snapshots, and beside restores. Those of a cluster that was lost for
good go with --forget.`,
	}
	q.addTo(cmd)
	out.addTo(cmd)
	cmd.Flags().IntVar(&o.Keep, "keep", 24, "how many complete snapshots of each cluster stay")
	cmd.Flags().StringVar(&o.Forget, "forget", "", "id of a cluster of which no complete snapshot stays")
	cmd.Flags().DurationVar(&o.Grace, "grace", 24*time.Hour, "how long packs stay that nothing needs")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "tell what would be done")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Keep < 1 || o.Grace <= 0 {
			return failed{exitUsage, errors.New("--keep must be at least 1, and --grace more than 0")}
		}
		b, err := a.bucket(cmd.Context(), q)
		if err != nil {
			return err
		}
		defer b.Close()
		done, err := backup.Prune(cmd.Context(), b, o)
		if err != nil {
			return failed{exitFailure, err}
		}
		if out.format == formatJSON {
			return printJSON(a.stdout, shownPrune{append([]string{}, done.Snapshots...), done.Packs, done.Bytes, done.Condemned, o.DryRun})
		}
		a.printer().line(fmt.Sprintf("%s removed; %s deleted (%s), %d condemned", number(len(done.Snapshots), "snapshot", "snapshots"), number(done.Packs, "pack", "packs"), mib(done.Bytes), done.Condemned))
		return nil
	}
	return cmd
}

func (a app) backupCreateCommand() *cobra.Command {
	var q bucket
	var ask ask
	var o output
	var name string
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "create", Short: "Have the nodes take a snapshot now", Args: cobra.NoArgs,
		Long: `Have the nodes take a snapshot now, and wait until it is complete. Everything that was acknowledged before is in it.
The nodes find it in the bucket, so they must have the same KAI_BACKUP_URL. Ctrl-C ends the wait, not the snapshot.`,
	}
	q.addTo(cmd)
	ask.addTo(cmd, 5*time.Second)
	o.addTo(cmd)
	cmd.Flags().StringVar(&name, "name", "", "its name (default: manual- and the time)")
	cmd.Flags().DurationVar(&wait, "wait", time.Hour, "longest time to wait until it is complete")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b, err := a.bucket(cmd.Context(), q)
		if err != nil {
			return err
		}
		defer b.Close()
		client, err := a.client(ask)
		if err != nil {
			return err
		}
		asking, cancel := context.WithTimeout(cmd.Context(), ask.timeout)
		st, err := client.Status(asking)
		cancel()
		if err != nil {
			return unanswered(err)
		}
		if name == "" {
			name = "manual-" + time.Now().UTC().Format("20060102T150405Z")
		}
		begin := backup.Begin{Cluster: st.Cluster.ID, Snapshot: name, Partitions: st.Cluster.Partitions, Leaves: node.BackupLeaves}
		if err := backup.Announce(cmd.Context(), b, &begin, node.BackupPatience); err != nil {
			return failed{exitFailure, err}
		}
		m, err := a.awaitSnapshot(cmd.Context(), b, name, st.Cluster.Partitions, wait)
		if err != nil {
			return err
		}
		v := showSnapshot(backup.Summary{Begin: m.Begin, Manifest: m})
		if o.format == formatJSON {
			return printJSON(a.stdout, v)
		}
		a.printer().line(fmt.Sprintf("snapshot %s is complete: %d records, %s, %s uploaded", name, v.Records, mib(v.Bytes), mib(v.Uploaded)))
		return nil
	}
	return cmd
}

// awaitSnapshot shows how far the nodes are with a snapshot until it is complete.
func (a app) awaitSnapshot(ctx context.Context, b *backup.Bucket, name string, partitions int, wait time.Duration) (*backup.Manifest, error) {
	for until := time.Now().Add(wait); ; {
		m, err := backup.Open(ctx, b, name)
		switch {
		case err == nil:
			a.progress("", true)
			return m, nil
		case gcerrors.Code(err) != gcerrors.NotFound:
			return nil, failed{exitFailure, err}
		case time.Now().After(until):
			return nil, failed{exitFailure, fmt.Errorf("snapshot %s is not complete after %s; the nodes go on: do all have this KAI_BACKUP_URL and KAI_BACKUP_KEY? kai status and their logs say what fails", name, wait)}
		}
		done, err := backup.Progress(ctx, b, name)
		if err != nil {
			return nil, failed{exitFailure, err}
		}
		a.progress(fmt.Sprintf("%d of %d partitions", done, partitions), false)
		select {
		case <-ctx.Done():
			return nil, failed{exitFailure, fmt.Errorf("the nodes go on with snapshot %s", name)}
		case <-time.After(time.Second):
		}
	}
}
