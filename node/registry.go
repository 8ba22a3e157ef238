package node

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"kai/backup"
	"kai/node/membership"
	"kai/node/ring"
)

// keptBucket is this environment's bucket, opened when it is first needed and kept open while it works: credentials need not be fetched
// each time. Safe for concurrent use.
type keptBucket struct {
	cfg Config
	mu  sync.Mutex
	b   *backup.Bucket
}

func (k *keptBucket) open(ctx context.Context) (b *backup.Bucket, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.b == nil {
		if b, err = OpenBucket(ctx, k.cfg, k.cfg.BackupURL, true); err != nil {
			return nil, err
		}
		k.b = b
	}
	return k.b, nil
}

// close ends it, or has the next open begin anew.
func (k *keptBucket) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.b != nil {
		_ = k.b.Close() // nothing is written by that
		k.b = nil
	}
}

// registry is the bucket as membership needs it: which founding of each generation counts.
type registry struct{ kept *keptBucket }

// Ground implements membership.Registry.
func (r registry) Ground(ctx context.Context) (g membership.Ground, err error) {
	b, err := r.kept.open(ctx)
	if err != nil {
		return g, err
	}
	f, sealed, err := backup.Generations(ctx, b, r.kept.cfg.Cluster)
	switch {
	case err != nil:
		r.kept.close()
		return g, err
	case f == nil:
		return g, nil
	case sealed != nil:
		return membership.Ground{Generation: f.Generation, Snapshot: sealed.Snapshot}, nil
	}
	founding, err := foundingOf(f)
	return membership.Ground{Generation: f.Generation, Founded: &founding}, err
}

// Claim implements membership.Registry.
func (r registry) Claim(ctx context.Context, f ring.Founding) (chosen ring.Founding, err error) {
	b, err := r.kept.open(ctx)
	if err != nil {
		return chosen, err
	}
	there, err := register(ctx, b, f)
	if err != nil {
		r.kept.close()
		return chosen, err
	}
	return foundingOf(there)
}

// register makes f the founding of its generation, unless there is one, and returns that.
func register(ctx context.Context, b *backup.Bucket, f ring.Founding) (*backup.Founded, error) {
	document, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	return backup.Found(ctx, b, backup.Founded{Name: f.Name, Generation: f.Generation, Cluster: f.ClusterID, At: time.Now().UTC(), Founding: document})
}

func foundingOf(f *backup.Founded) (founding ring.Founding, err error) {
	if err := json.Unmarshal(f.Founding, &founding); err != nil || founding.ClusterID != f.Cluster || founding.Generation != f.Generation {
		return founding, fmt.Errorf("the founding of generation %d of cluster %q in the bucket is not readable (%w)", f.Generation, f.Name, err)
	}
	return founding, nil
}
