package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"kai/backup"
	"kai/node/ring"
)

const (
	// bootstrapLeast is how many bytes a partition has at least in a snapshot for it to be worth two or three requests to the bucket.
	bootstrapLeast = 64 << 10
	// bootstrapStall is how long nothing may come from the bucket until the partition is left to the peers.
	bootstrapStall = 30 * time.Second
	// bootstrapRest is how long a bucket is left alone that has failed.
	bootstrapRest = time.Minute
)

// bootstrap loads partitions that are new on this node from the newest complete snapshot of its cluster, so that peers have only to give what has
// changed since (placement.Options.Preload). What fails costs time, nothing else. Safe for concurrent use.
type bootstrap struct {
	n       *node
	cluster string

	mu       sync.Mutex // held while the bucket is looked at
	known    map[string]bool
	newest   *backup.Manifest
	looked   time.Time // when the last look began that told newest
	failed   time.Time
	announce sync.Once
}

// newBootstrap returns nil if there is no bucket.
func (n *node) newBootstrap(d *dataPath) *bootstrap {
	if n.cfg.BackupURL == "" {
		return nil
	}
	return &bootstrap{n: n, cluster: d.founding.ClusterID, known: map[string]bool{}}
}

// look returns the newest complete snapshot, as of the call or later: those that wait for each other's look share the next. nil: there is none.
func (b *bootstrap) look(ctx context.Context) (bucket *backup.Bucket, m *backup.Manifest, err error) {
	called := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.failed.IsZero() && time.Since(b.failed) < bootstrapRest {
		return nil, nil, errors.New("the bucket has failed a moment ago")
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, bootstrapStall)
	defer cancel()
	if bucket, err = b.n.bucket.open(ctx); err != nil {
		return nil, nil, b.fail(err)
	}
	if b.looked.After(called) {
		return bucket, b.newest, nil
	}
	_, newest, err := backup.Begun(ctx, bucket, b.cluster, b.known)
	if newest != nil && (b.newest == nil || newest.Cut.After(b.newest.Cut)) {
		b.newest = newest // it is told once, be there an error or not
	}
	if err != nil {
		return nil, nil, b.fail(err)
	}
	b.looked = began
	return bucket, b.newest, nil
}

// fail notes that the bucket has failed. b.mu is held.
func (b *bootstrap) fail(err error) error {
	b.failed = time.Now()
	b.n.bucket.close()
	b.n.log.Warn("partitions come from peers alone: the bucket cannot be read", "error", err)
	return err
}

// preload implements placement.Options.Preload.
func (b *bootstrap) preload(ctx context.Context, p ring.Partition, take func(key, enc []byte) error) error {
	bucket, m, err := b.look(ctx)
	if err != nil || m == nil || int(p) >= len(m.Entries) || m.Entries[p].Bytes < bootstrapLeast {
		return err
	}
	b.announce.Do(func() {
		b.n.log.Info("partitions are loaded from a snapshot first", "snapshot", m.Snapshot, "age", time.Since(m.Cut).Round(time.Second).String())
	})
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(bootstrapStall, func() { cancel(errors.New("the bucket is silent")) })
	defer stalled.Stop()
	taken := error(nil)
	_, err = backup.Restore(ctx, bucket, m, func(i int) bool { return i == int(p) }, false, func(_ context.Context, _ int, items []backup.Item) error {
		stalled.Stop()
		defer stalled.Reset(bootstrapStall)
		for _, it := range items {
			if taken = take(it.Key, it.Value); taken != nil {
				return taken
			}
		}
		return nil
	})
	if err != nil && taken == nil && context.Cause(ctx) != context.Canceled {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.fail(err)
	}
	return err
}
