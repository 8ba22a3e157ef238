package backup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"gocloud.dev/blob"
)

// condemnedKey is the list of packs that nothing names, and since when that is known.
const condemnedKey = "gc/condemned"

type condemned struct {
	Format int                  `json:"format"`
	Since  map[string]time.Time `json:"since"` // by the pack's key
}

// PruneOptions of Prune.
type PruneOptions struct {
	// Keep is how many complete snapshots of each cluster stay, the newest; at least 1. A cluster that was lost and founded anew must not push
	// out what it is to be restored from.
	Keep int
	// Forget is the id of a cluster none of whose complete snapshots stay.
	Forget string
	// Grace is how long a pack that nothing names any more stays, twice over. It must be longer than a snapshot or
	// a restore takes: nobody holds a lock.
	Grace time.Duration
	// DryRun tells what would be done.
	DryRun bool
}

// Pruned is what Prune did.
type Pruned struct {
	Snapshots []string // removed
	Condemned int      // packs that nothing names, which stay for now
	Packs     int      // deleted
	Bytes     int64    // of those
}

// Prune removes complete snapshots but for the newest of each cluster and those that are pinned, those that were given up, and packs that nothing has named for the
// grace. It is safe beside snapshots and restores, and beside itself. What cannot be read might name any pack: then nothing is
// removed, and the error names it.
func Prune(ctx context.Context, b *Bucket, o PruneOptions) (done Pruned, err error) {
	if o.Keep < 1 || o.Grace <= 0 {
		return done, fmt.Errorf("backup: keep %d snapshots and a grace of %v: at least one must stay, and the grace be more than nothing", o.Keep, o.Grace)
	}
	all, err := List(ctx, b)
	if err != nil {
		return done, err
	}
	now := time.Now().UTC()
	stays := map[string]bool{}
	complete := map[string]int{} // by cluster
	for _, s := range slices.Backward(all) {
		if s.Err != nil && !missing(s.Err) {
			return done, fmt.Errorf("backup: nothing pruned: snapshot %s cannot be read, and might need anything: remove %s%s/ yourself if it is lost: %w", s.Snapshot, snapshotsDir, s.Snapshot, s.Err)
		}
		switch {
		case s.Complete() && s.Cluster != o.Forget && complete[s.Cluster] < o.Keep:
			complete[s.Cluster]++
			stays[s.Snapshot] = true
		case !s.Complete() && now.Before(s.Expires):
			stays[s.Snapshot], stays[s.Parent] = true, true
		}
	}
	if err := pinned(ctx, b, func(p pin) { stays[p.Snapshot] = true }); err != nil {
		return done, fmt.Errorf("backup: nothing pruned: %w", err)
	}
	named := map[string]bool{} // packs
	name := func(entries []Entry) {
		for _, e := range entries {
			for _, p := range e.Packs {
				named[packKey(p.ID)] = true
			}
		}
	}
	for _, s := range all {
		switch {
		case !stays[s.Snapshot]:
			done.Snapshots = append(done.Snapshots, s.Snapshot)
		case s.Complete():
			name(s.Manifest.Entries)
		default:
			err := list(ctx, b, partsDir(s.Snapshot), false, func(o *blob.ListObject) error {
				var p Part
				if err := document(ctx, b, o.Key, &p); err != nil && !errors.Is(err, ErrDamaged) { // damaged: nobody uses it
					return err
				}
				name(p.Entries)
				return nil
			})
			if err != nil {
				return done, err
			}
		}
	}
	if !o.DryRun {
		for _, id := range done.Snapshots {
			if err := remove(ctx, b, id); err != nil {
				return done, err
			}
		}
	}
	return done, sweep(ctx, b, o, now, named, &done)
}

// remove deletes a snapshot, its manifest last: as long as that is there it is complete, whatever else is gone, since the packs are. Without it, but with
// BEGIN, it would be one that is under way, which nodes go on with.
func remove(ctx context.Context, b *Bucket, id string) error {
	var keys []string
	err := list(ctx, b, snapshotsDir+id+"/", false, func(o *blob.ListObject) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil {
		return err
	}
	rank := func(key string) int {
		switch path.Base(key) {
		case "MANIFEST":
			return 2
		case "BEGIN": // of one that was given up, it is what the next prune finds
			return 1
		}
		return 0
	}
	slices.SortFunc(keys, func(a, b string) int { return rank(a) - rank(b) })
	for _, key := range keys {
		if err := drop(ctx, b, key); err != nil {
			return err
		}
	}
	return nil
}

func drop(ctx context.Context, b *Bucket, key string) error {
	err := retry(ctx, func() error { return b.Delete(ctx, key) })
	if err != nil && !missing(err) {
		return fmt.Errorf("backup: delete %s: %w", key, err)
	}
	return nil
}

// sweep deletes packs that were condemned a grace ago and that still nothing names, and condemns others.
func sweep(ctx context.Context, b *Bucket, o PruneOptions, now time.Time, named map[string]bool, done *Pruned) error {
	var before condemned
	if err := document(ctx, b, condemnedKey, &before); err != nil && !missing(err) && !errors.Is(err, ErrDamaged) {
		return err
	}
	after := condemned{Format: Format, Since: map[string]time.Time{}}
	var gone []string
	err := list(ctx, b, packsDir, false, func(obj *blob.ListObject) error {
		if named[obj.Key] || !strings.HasSuffix(obj.Key, ".kp") || now.Sub(obj.ModTime) < o.Grace {
			return nil
		}
		since, known := before.Since[obj.Key]
		if known && now.Sub(since) >= o.Grace {
			gone = append(gone, obj.Key)
			done.Packs++
			done.Bytes += obj.Size
			return nil
		}
		if !known || since.After(now) {
			since = now
		}
		after.Since[obj.Key] = since
		done.Condemned++
		return nil
	})
	if err != nil || o.DryRun {
		return err
	}
	for _, key := range gone {
		if err := drop(ctx, b, key); err != nil {
			return err
		}
	}
	if len(before.Since) == 0 && len(after.Since) == 0 {
		return nil
	}
	content, err := seal(after)
	if err != nil {
		return err
	}
	return put(ctx, b, condemnedKey, content, false)
}
