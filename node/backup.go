package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/gcsblob" // gs://
	_ "gocloud.dev/blob/s3blob"  // s3://

	"go.opentelemetry.io/otel/attribute"

	"kai/backup"
	"kai/node/console"
	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/replica"
	"kai/node/ring"
)

const (
	// backupLook is the time between two looks at snapshots under way, and, in a directory, for those that were begun; elsewhere each look
	// costs money, two lists, and there are fewer.
	backupLook     = 5 * time.Second
	backupLookIdle = 30 * time.Second
	// generationLook is how many of those looks have one whether the cluster has ended.
	generationLook = 4
	// backupTurn is how long the next member of a partition waits for the one before it.
	backupTurn = time.Minute
	// BackupPatience is when a snapshot that is not complete is given up, backupGrace how long packs stay that nothing names,
	// twice over. A snapshot or a restore must take less.
	BackupPatience = 12 * time.Hour
	backupGrace    = 24 * time.Hour
	// BackupLeaves is how many parts a partition has in snapshots: those that replicas compare.
	BackupLeaves = message.Leaves
	// leavesWithin is how long a node that stops waits at most until its part of a snapshot under way can be used.
	leavesWithin = 15 * time.Second
	// purgeMargin is how much the clock of who deleted may be behind that of who began the snapshot, and one second for its rounding.
	purgeMargin = replica.MaxLead + time.Second
	// pruneEvery is the time between two prunes of one node.
	pruneEvery = time.Hour
)

// backups count what this node did for snapshots since its start.
type backups struct {
	taken, failed, bytes, puts, partitions, unchanged, leaves atomic.Uint64
	lastError                                                 atomic.Pointer[string]
	newest                                                    atomic.Int64 // cut of the newest complete one, in Unix seconds; 0: none known
	pinned                                                    atomic.Int64 // oldest cut of snapshots that are being restored, in Unix seconds; 0: none
	taking                                                    atomic.Bool
	left                                                      chan struct{} // closed when this node takes part no more
	// Of the one goroutine that looks at the bucket:
	known map[string]bool
	// registered: the bucket knows which generation this cluster is, or that another one is it.
	registered bool
	looks      int
	seen       time.Time // cut of the newest complete one that it was told of
	pruned     time.Time
}

// OpenBucket opens the bucket of an URL, with c's key and limits; create: a directory is made if there is none. The caller closes it.
func OpenBucket(ctx context.Context, c Config, url string, create bool) (*backup.Bucket, error) {
	if err := checkBucketURL(url); err != nil {
		return nil, fmt.Errorf("%s %w", url, err)
	}
	key, err := backup.NewKey(c.BackupKey.Bytes())
	if err != nil {
		return nil, fmt.Errorf("KAI_BACKUP_KEY: %w", err)
	}
	var b *blob.Bucket
	if dir, ok := strings.CutPrefix(url, "file://"); ok {
		b, err = backup.OpenDir(dir, create)
	} else {
		b, err = blob.OpenBucket(ctx, url)
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", url, err)
	}
	return &backup.Bucket{Bucket: b, Key: key, Up: backup.NewPace(int64(c.BackupUploadRate)), Down: backup.NewPace(int64(c.BackupDownloadRate))}, nil
}

// bucketSchemes are those that OpenBucket knows.
var bucketSchemes = []string{"file", "gs", "s3"}

// checkBucketURL says what is wrong with an URL of a bucket, as far as that can be told without opening it; "" is none.
func checkBucketURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || !slices.Contains(bucketSchemes, u.Scheme):
		return errors.New("is not a bucket that this version can use")
	case u.Scheme == "file" && (u.Host != "" || len(u.Path) < 2 || strings.ContainsAny(s, "?#%")):
		return errors.New("is not file:// and an absolute path without ?, # and %")
	case u.Scheme != "file" && (u.Host == "" || strings.Trim(u.Path, "/") != ""):
		return errors.New("is not the name of a bucket alone: a directory within it is ?prefix=dir/")
	case u.Query().Has("prefix") && !strings.HasSuffix(u.Query().Get("prefix"), "/"):
		return errors.New("has a prefix that does not end in /")
	}
	return nil
}

// backUp takes part in snapshots until ctx ends, or the node leaves: then what it has uploaded is named in the bucket. Whatever fails there, the node goes on: it is told by logs and counters.
func (n *node) backUp(ctx context.Context, d *dataPath) error {
	defer close(d.backups.left)
	if n.cfg.BackupURL == "" {
		return nil
	}
	d.backups.known = map[string]bool{}
	var b *backup.Bucket // open as long as it works: credentials need not be fetched each time
	end := func() {
		if b != nil {
			_ = b.Close()
			b = nil
		}
	}
	defer end()
	for ctx.Err() == nil {
		var err error
		if b == nil {
			b, err = OpenBucket(ctx, n.cfg, n.cfg.BackupURL, true)
		}
		if err == nil {
			err = n.backUpOnce(ctx, d, b)
		}
		if errors.Is(err, backup.ErrLeft) {
			n.log.Info("the others go on with the snapshot under way")
			return nil
		}
		if err == nil {
			d.backups.lastError.Store(nil)
		} else if end(); ctx.Err() == nil {
			why := err.Error()
			d.backups.lastError.Store(&why)
			d.backups.failed.Add(1)
			n.log.Warn("backup", "bucket", n.cfg.BackupURL, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-n.leaves:
			return nil
		case <-time.After(n.backupPause()):
		}
	}
	return nil
}

// backupPause is the time until the next look.
func (n *node) backupPause() time.Duration {
	if strings.HasPrefix(n.cfg.BackupURL, "file:") {
		return backupLook
	}
	return backupLookIdle
}

// snapshotName is that of the snapshot of a cluster whose turn it is: the same on all nodes, as far as their clocks agree.
func snapshotName(now time.Time, interval time.Duration, cluster string) string {
	return now.UTC().Truncate(interval).Format("20060102T150405Z") + "-" + cluster[:min(len(cluster), 8)]
}

func (n *node) backUpOnce(ctx context.Context, d *dataPath, b *backup.Bucket) error {
	if d.backups.looks++; d.backups.looks%generationLook == 1 {
		if err := n.lookAtGeneration(ctx, d, b); err != nil {
			return err
		}
	}
	begun, err := d.lookAtBucket(ctx, b)
	if err != nil {
		return err
	}
	if n.cfg.BackupInterval > 0 {
		if due := snapshotName(time.Now(), n.cfg.BackupInterval, d.founding.ClusterID); !d.backups.known[due] && !slices.Contains(begun, due) {
			begun = append(begun, due)
		}
	}
	var failed error // one that cannot be taken, perhaps for another key, keeps no later one waiting
	for _, id := range begun {
		if err := n.snapshot(ctx, d, b, id); err != nil {
			failed = errors.Join(failed, fmt.Errorf("snapshot %s: %w", id, err))
			continue
		}
		if _, err := d.lookAtBucket(ctx, b); err != nil {
			return err
		}
	}
	return errors.Join(failed, n.prune(ctx, d, b))
}

// lookAtBucket returns the snapshots that are under way, and learns which is the newest that is complete, and which are being restored.
func (d *dataPath) lookAtBucket(ctx context.Context, b *backup.Bucket) (begun []string, err error) {
	begun, newest, err := backup.Begun(ctx, b, d.founding.ClusterID, d.backups.known)
	if newest != nil && newest.Cut.After(d.backups.seen) {
		d.backups.seen = newest.Cut // it is told once, be there an error or not
	}
	if err != nil {
		return nil, err
	}
	// In this order: who restores has a pin before it looks which snapshot is the newest.
	pinned, err := backup.Pinned(ctx, b)
	if err != nil {
		return nil, err
	}
	d.backups.pinned.Store(max(0, pinned.Unix()))
	if !d.backups.seen.IsZero() {
		d.backups.newest.Store(d.backups.seen.Unix())
	}
	return begun, nil
}

// purgeAge is how long a record must have been dead before it is forgotten: with snapshots, longer than the newest complete one, and than
// any that is being restored, is old. What is forgotten later than it is missing in a snapshot cannot come back with it. Negative: nothing is
// forgotten, because no complete snapshot is known, and one may be under way that holds it alive.
func (n *node) purgeAge(d *dataPath) time.Duration {
	age := n.cfg.PurgeAfter
	if n.cfg.BackupURL == "" || age == 0 {
		return age
	}
	cut := d.backups.newest.Load()
	if cut == 0 {
		return -1
	}
	if pinned := d.backups.pinned.Load(); pinned > 0 {
		cut = min(cut, pinned)
	}
	return max(age, time.Since(time.Unix(cut, 0))+purgeMargin)
}

func (n *node) snapshot(ctx context.Context, d *dataPath, b *backup.Bucket, id string) error {
	s := backup.New(backup.Options{
		Bucket: b, Cluster: d.founding.ClusterID, Node: string(n.identity.Node), Partitions: d.founding.Partitions, Leaves: BackupLeaves,
		Source: snapshotSource{d}, Patience: BackupPatience, Look: backupLook, Leave: n.leaves, Logger: n.log,
		GiveWay: n.giveWay(d),
	})
	ctx, end := flight.Work(ctx, "snapshot", "snapshot "+d.founding.ClusterID+" "+id, nil, attribute.String("kai.snapshot", id), attribute.String("kai.node.id", string(n.identity.Node)))
	began := time.Now()
	d.gentle.SetRates(n.snapshotRates())
	d.backups.taking.Store(true)
	defer d.backups.taking.Store(false)
	done, err := s.Take(ctx, id, func(p int) time.Duration { return n.turn(d, id, ring.Partition(p)) })
	d.backups.bytes.Add(uint64(done.Bytes))
	d.backups.puts.Add(uint64(done.Puts))
	d.backups.partitions.Add(uint64(done.Partitions))
	d.backups.unchanged.Add(uint64(done.Unchanged))
	d.backups.leaves.Add(uint64(done.Leaves))
	end(err, attribute.Int("kai.partitions", done.Partitions), attribute.Int64("kai.records", done.Records), attribute.Int64("kai.bytes", done.Bytes),
		attribute.Int("kai.puts", done.Puts), attribute.Int("kai.leaves", done.Leaves), attribute.Int("kai.leaves.unchanged", done.Unchanged))
	if err != nil {
		return err
	}
	d.backups.taken.Add(1) // that it is the newest is seen at the next look, together with pins
	n.log.InfoContext(ctx, "snapshot complete", "snapshot", id, "partitions", done.Partitions, "records", done.Records, "bytes", done.Bytes,
		"puts", done.Puts, "leaves", done.Leaves, "unchanged", done.Unchanged, "took", time.Since(began).Round(time.Millisecond).String())
	return nil
}

// giveWay has a snapshot wait for what clients feel, unless somebody waits for it: the cluster's last one, or what a node that leaves can still do.
func (n *node) giveWay(d *dataPath) func(context.Context, int) {
	return func(ctx context.Context, bytes int) {
		select {
		case <-n.leaves:
		default:
			if !n.quiet.Load() {
				d.gentle.Spend(ctx, bytes)
			}
		}
	}
}

// turn is after how long this node uploads p in a snapshot: the members are ranked by a hash of snapshot, partition and node
// (rendezvous), which gives each about the same.
func (n *node) turn(d *dataPath, id string, p ring.Partition) time.Duration {
	c := d.table.Configuration(p)
	if !slices.Contains(c.Members, n.identity.Node) {
		return -1
	}
	weight := func(node ring.NodeID) uint64 {
		return ring.Hash(fmt.Appendf(binary.LittleEndian.AppendUint32(nil, uint32(p)), "%s %s", id, node))
	}
	rank, own := 0, weight(n.identity.Node)
	for _, m := range c.Members {
		if m != n.identity.Node && weight(m) > own {
			rank++
		}
	}
	return time.Duration(rank) * backupTurn
}

// measureBackups emits what was done for snapshots, and how old the newest complete one is.
func (n *node) measureBackups(emit func(name string, v uint64)) {
	d := n.data.Load()
	if d == nil || n.cfg.BackupURL == "" {
		return
	}
	b := &d.backups
	if at := b.newest.Load(); at > 0 {
		emit("backup_age_seconds", uint64(max(0, time.Now().Unix()-at)))
	}
	emit("backup_snapshots", b.taken.Load())
	emit("backup_failures", b.failed.Load())
	emit("backup_bytes", b.bytes.Load())
	emit("backup_puts", b.puts.Load())
	emit("backup_partitions", b.partitions.Load())
	emit("backup_leaves", b.leaves.Load())
	emit("backup_unchanged_leaves", b.unchanged.Load())
}

// backupStatus is nil if no snapshots are taken.
func (n *node) backupStatus(d *dataPath) *console.Backup {
	if n.cfg.BackupURL == "" {
		return nil
	}
	b := &console.Backup{URL: n.cfg.BackupURL, Failures: d.backups.failed.Load()}
	if at := d.backups.newest.Load(); at > 0 {
		newest := time.Unix(at, 0).UTC()
		b.Newest = &newest
	}
	if why := d.backups.lastError.Load(); why != nil {
		b.LastError = *why
	}
	return b
}

// prune is done by the first member of partition 0, now and then.
func (n *node) prune(ctx context.Context, d *dataPath, b *backup.Bucket) error {
	c := d.table.Configuration(0)
	if len(c.Members) == 0 || c.Members[0] != n.identity.Node || time.Since(d.backups.pruned) < pruneEvery {
		return nil
	}
	d.backups.pruned = time.Now()
	done, err := backup.Prune(ctx, b, backup.PruneOptions{Keep: n.cfg.BackupKeep, Grace: backupGrace})
	if err == nil && len(done.Snapshots)+done.Packs > 0 {
		n.log.Info("bucket pruned", "snapshots", done.Snapshots, "packs", done.Packs, "bytes", done.Bytes)
	}
	return err
}

// snapshotSource is what this node holds, for snapshots.
type snapshotSource struct{ d *dataPath }

// Sums implements backup.Source.
func (s snapshotSource) Sums(ctx context.Context, p int) ([]uint64, error) {
	return s.d.repairer.Gather(ctx, ring.Partition(p), s.d.founding.Quorum)
}

// Records implements backup.Source. The cluster's own registers are among them: they say who held what.
func (s snapshotSource) Records(ctx context.Context, p int, leaves []int, yield func(backup.Record) error, pause func() error) error {
	return s.d.repairer.Own(ctx, ring.Partition(p), leaves, func(hash uint64, key, enc []byte) error {
		return yield(backup.Record{Key: key, Value: enc, Leaf: message.Leaf(hash), Sum: message.Term(hash, record.PeekBallot(enc))})
	}, pause)
}
