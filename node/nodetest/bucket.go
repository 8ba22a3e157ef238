package nodetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"kai/node/message"
	"kai/node/ring"
)

// bucket keeps the snapshots of a simulated cluster. What it gives and tells follows the rules of node/backup.go and
// node/bootstrap.go; how room backup keeps them is tested there.
type bucket struct {
	mu       sync.Mutex
	complete []*snapshot // the newest last
}

type snapshot struct {
	cut  time.Time // by the clock of who began it
	rows [][]item  // by partition
}

type item struct{ key, enc []byte }

// snapshotMargin is how far clocks may be apart, and stamps ahead of them.
const snapshotMargin = 20 * time.Millisecond

var errNoSnapshot = errors.New("the snapshot cannot be read")

// newest returns the newest complete snapshot, or nil.
func (b *bucket) newest() *snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.complete) == 0 {
		return nil
	}
	return b.complete[len(b.complete)-1]
}

// snapshots takes one snapshot after the other until stop is closed.
func (c *Cluster) snapshots(stop <-chan struct{}) {
	r := rng{seed: mix(c.seed, 1717)}
	pause := func(lo, hi time.Duration) bool {
		timer := time.NewTimer(r.between(lo, hi))
		defer timer.Stop()
		select {
		case <-stop:
			return false
		case <-timer.C:
			return true
		}
	}
	for pause(5*time.Millisecond, 80*time.Millisecond) {
		s := &snapshot{cut: c.nodes[r.intn(len(c.nodes))].wall(), rows: make([][]item, c.Partitions)}
		left := make([]ring.Partition, c.Partitions)
		for p := range left {
			left[p] = ring.Partition(p)
		}
		for try := 0; len(left) > 0 && try < 40; try++ {
			if !pause(100*time.Microsecond, 8*time.Millisecond) {
				return
			}
			at := r.intn(len(left))
			if rows, err := c.upload(&r, left[at]); err == nil {
				s.rows[left[at]] = rows
				left = slices.Delete(left, at, at+1)
			}
		}
		if len(left) == 0 {
			c.bucket.mu.Lock()
			c.bucket.complete = append(c.bucket.complete, s)
			c.bucket.mu.Unlock()
		}
	}
}

// upload returns what a node that takes itself for a member of p has to put into a snapshot.
func (c *Cluster) upload(r *rng, p ring.Partition) (rows []item, err error) {
	inc := c.nodes[r.intn(len(c.nodes))].current()
	if inc == nil || !inc.alive() {
		return nil, errNoSnapshot
	}
	ctx, cancel := context.WithTimeout(inc.ctx, time.Second)
	defer cancel()
	if _, err := inc.repairer.Gather(ctx, p, c.Quorum); err != nil {
		return nil, err
	}
	all := make([]int, message.Leaves)
	for i := range all {
		all[i] = i
	}
	err = inc.repairer.Own(ctx, p, all, func(_ uint64, key, enc []byte) error {
		rows = append(rows, item{slices.Clone(key), slices.Clone(enc)})
		return nil
	}, func() error { return nil })
	return rows, err
}

// purgeAge is the node's age of records to be forgotten.
func (i *incarnation) purgeAge() time.Duration {
	if !i.c.Snapshots || i.c.Mutant&PurgesBeforeSnapshot != 0 {
		return i.c.PurgeAge
	}
	s := i.c.bucket.newest()
	if s == nil {
		return -1
	}
	return max(i.c.PurgeAge, i.wall().Sub(s.cut)+snapshotMargin+2*i.c.Skew)
}

// preload is placement's Preload: it takes its time, and sometimes it fails in the middle.
func (i *incarnation) preload(ctx context.Context, p ring.Partition, take func(key, enc []byte) error) error {
	r := rng{seed: mix(i.c.seed, 1818, uint64(i.index), uint64(time.Since(i.c.begun)))}
	s := i.c.bucket.newest()
	if s == nil {
		return nil
	}
	if i.c.Mutant&LoadsOldSnapshot != 0 {
		i.c.bucket.mu.Lock()
		s = i.c.bucket.complete[0]
		i.c.bucket.mu.Unlock()
	}
	if i.c.SlowLoads {
		time.Sleep(2 * time.Second)
	}
	time.Sleep(r.between(time.Millisecond, 30*time.Millisecond))
	for _, it := range s.rows[p] {
		if r.chance(10) {
			time.Sleep(r.between(time.Millisecond, 10*time.Millisecond))
		}
		if r.chance(2) && !i.c.SlowLoads {
			return errNoSnapshot
		}
		if err := take(it.key, it.enc); err != nil {
			return err
		}
	}
	return ctx.Err()
}
