package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"kai/backup"
	"kai/node/console"
	"kai/node/record"
	"kai/node/ring"
)

// A generation of a cluster ends with a seal in the bucket (backup/generation.go). Before that its nodes are quiet, so that replicas can come together; then
// sealed: they take no proposals, of nodes that were away meanwhile neither, so that a
// snapshot which is begun then has everything. Once the seal is there they are ended: they do not vote, for good, since the next
// generation may serve already.

// sealName is where a node keeps its console.SealState; nothing is open.
const sealName = "sealed"

// sealed is the state that this node is in.
func (n *node) sealed() console.SealState {
	if s := n.seal.Load(); s != nil {
		return *s
	}
	return console.SealOpen
}

// loadSeal goes on in the state on the disk, before the node answers anybody.
func (n *node) loadSeal(d *dataPath) error {
	b, err := n.store.Meta(sealName)
	if err != nil || len(b) == 0 {
		return err
	}
	state := console.SealState(b)
	if err := n.applySeal(d, state); err != nil {
		return err
	}
	n.seal.Store(&state)
	return nil
}

// applySeal has the node behave as in a state; that it is in it is said once that is durable, too.
func (n *node) applySeal(d *dataPath, state console.SealState) error {
	n.quiet.Store(state != console.SealOpen)
	switch state {
	case console.SealOpen, console.SealQuiet:
		d.replica.Unseal()
		return nil
	case console.SealSet:
		return d.replica.Seal()
	}
	d.replica.SetVoting(false)
	return nil
}

// setSeal brings the node into a state, durably; one that has ended stays so.
func (n *node) setSeal(d *dataPath, state console.SealState) error {
	n.sealing.Lock()
	defer n.sealing.Unlock()
	switch was := n.sealed(); {
	case was == state:
		return nil
	case was == console.SealEnded:
		return fmt.Errorf("cluster %s has ended: the bucket has its seal", d.founding.ClusterID)
	}
	value := []byte(state)
	if state == console.SealOpen || state == console.SealQuiet {
		value = nil
	}
	keep := func() error {
		done := make(chan error, 1)
		n.store.PutMeta(sealName, value, told(func(err error) { done <- err }))
		return <-done
	}
	// It behaves so before that is kept, and not for longer: what others were told holds whenever it crashes. After an error it is asked again.
	steps := []func() error{func() error { return n.applySeal(d, state) }, keep}
	if value == nil {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("this node is not %s: %w", state, err)
		}
	}
	n.seal.Store(&state)
	switch state {
	case console.SealOpen:
		n.log.Info("this node takes writes again")
	case console.SealQuiet:
		n.log.Warn("this node refuses clients' writes: an operator is ending the cluster, or has begun to (kai backup seal --undo takes that back)")
	case console.SealEnded:
		n.log.Warn("this cluster has ended, by its seal in the bucket: this node serves no more; to let it take part in what comes next, stop it and empty its data directory",
			"cluster_id", d.founding.ClusterID, "generation", d.founding.Generation)
	case console.SealSet:
		n.log.Warn("this node is sealed: it takes no writes until the cluster's end is in the bucket, or kai backup seal --undo takes that back")
	}
	return nil
}

// ofCluster returns this node's state and data path, if it is of that cluster.
func (n *node) ofCluster(id string) (now console.Sealing, d *dataPath, err error) {
	now, d = console.Sealing{NodeID: string(n.identity.Node), State: n.sealed()}, n.data.Load()
	switch {
	case d == nil:
		err = errNotFounded
	case id != d.founding.ClusterID:
		err = fmt.Errorf("this node is of cluster %s, not %s", d.founding.ClusterID, id)
	}
	return now, d, err
}

// Seal implements console.Sealer.
func (s source) Seal(ctx context.Context, cluster string, state console.SealState) (console.Sealing, error) {
	n := s.n
	now, d, err := n.ofCluster(cluster)
	switch {
	case err != nil:
		return now, err
	case n.bucket == nil:
		return now, fmt.Errorf("this node has no bucket: set KAI_BACKUP_URL")
	case state != console.SealOpen && state != console.SealQuiet && state != console.SealSet && state != console.SealEnded:
		return now, fmt.Errorf("no state %q: write open, quiet, sealed or ended", state)
	}
	if state == console.SealOpen || state == console.SealEnded {
		ended, err := n.hasEnded(ctx, d)
		if err != nil {
			return now, err
		}
		switch {
		case ended && state == console.SealOpen:
			return now, fmt.Errorf("cluster %s has ended: the bucket has its seal, and the next generation may serve already", d.founding.ClusterID)
		case !ended && state == console.SealEnded:
			return now, fmt.Errorf("the bucket has no seal of cluster %s", d.founding.ClusterID)
		}
	}
	if err := n.setSeal(d, state); err != nil {
		return now, err
	}
	now.State = n.sealed()
	return now, nil
}

// settling is how many partitions are compared side by side.
const settling = 8

// Settle implements console.Sealer.
func (s source) Settle(ctx context.Context, cluster string) (console.Sealing, error) {
	now, d, err := s.n.ofCluster(cluster)
	if err != nil {
		return now, err
	}
	if now.State != console.SealQuiet {
		return now, fmt.Errorf("this node is %s, not quiet", now.State)
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.SetLimit(settling)
	for p := range ring.Partition(d.founding.Partitions) {
		parts.Go(func() error { return settle(ctx, d, p) })
	}
	return now, parts.Wait()
}

// settle returns when this node's replica of p holds what all others that answer hold.
func settle(ctx context.Context, d *dataPath, p ring.Partition) error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		diverged, err := d.repairer.Level(ctx, p)
		if err == nil && diverged == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("replicas of partition %d are not alike yet: %d leaves (%w)", p, diverged, errors.Join(err, ctx.Err()))
		case <-time.After(wait):
		}
	}
}

// hasEnded asks the bucket whether this node's cluster has a seal.
func (n *node) hasEnded(ctx context.Context, d *dataPath) (bool, error) {
	b, err := n.bucket.open(ctx)
	if err != nil {
		return false, err
	}
	s, err := backup.SealOf(ctx, b, d.founding.Name, d.founding.Generation)
	if err != nil {
		n.bucket.close()
		return false, err
	}
	return s != nil && s.Cluster == d.founding.ClusterID, nil
}

// lookAtGeneration registers this node's cluster, if it was founded before there was a bucket, and ends the node if the bucket has the cluster's
// seal.
func (n *node) lookAtGeneration(ctx context.Context, d *dataPath, b *backup.Bucket) error {
	if !d.backups.registered {
		f := d.founding
		there, err := register(ctx, b, f)
		if err != nil {
			return err
		}
		d.backups.registered = true
		if there.Cluster != f.ClusterID {
			n.log.Error("the bucket belongs to another cluster of this name: give each its own bucket, prefix or KAI_CLUSTER; this one cannot be sealed", "cluster_id", f.ClusterID, "other_cluster_id", there.Cluster)
		}
	}
	if n.sealed() == console.SealEnded {
		return nil
	}
	ended, err := n.hasEnded(ctx, d)
	if err != nil || !ended {
		return err
	}
	return n.setSeal(d, console.SealEnded)
}

// refuseWrites answers the operations that are no gets, and returns the others, with their places.
func refuseWrites(ops []record.Op, results []record.Result) (gets []record.Op, at []int) {
	for i := range ops {
		if ops[i].Mutates() {
			results[i] = record.Result{Status: record.Unavailable, Detail: "this cluster is being sealed"}
			continue
		}
		gets, at = append(gets, ops[i]), append(at, i)
	}
	return gets, at
}
