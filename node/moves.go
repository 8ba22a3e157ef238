package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"kai/node/placement"
	"kai/node/ring"
)

const (
	// moveTick is how often a node looks whether partitions should move.
	moveTick = 200 * time.Millisecond
	// moveTimeout bounds one message of a move: a page takes a disk and a link their time.
	moveTimeout = 5 * time.Second
	// slotPause is the time between two attempts to get a slot.
	slotPause = 500 * time.Millisecond
	slotName  = "slot"
)

// move takes a slot, if this node has none, and then part in the moves of partitions, until ctx ends.
func (n *node) move(ctx context.Context, d *dataPath) error {
	seen := newSightings(n, d)
	o := placement.Options{
		Self: n.identity.Node, Partitions: d.founding.Partitions, Quorum: d.founding.Quorum,
		Configuration: d.table.Configuration,
		Adopt:         func(p ring.Partition, c ring.Configuration) { adopt(d.replica, p, c) },
		Peer:          func(id ring.NodeID) placement.Replica { return n.links.replica(id) },
		Local:         d.replica, Decide: d.coordinator.Decide,
		Plan: seen.plan, Gone: seen.gone, Everybody: seen.alive,
		Moves: n.cfg.Moves, Pacer: d.pacer, Timeout: moveTimeout, Tick: moveTick, Logger: n.log,
	}
	if b := n.newBootstrap(d); b != nil {
		o.Preload = b.preload
	}
	mover := placement.NewMover(o)
	if err := n.takeSlot(ctx, d, mover.Learn); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil
	}
	d.mover.Store(mover)
	d.seen.Store(seen)
	var metered sync.WaitGroup
	metered.Go(func() { n.runMeter(ctx, d, mover.Counters()) })
	defer metered.Wait()
	return mover.Run(ctx)
}

// takeSlot finds out this node's slot: a founder's is its place in the founding; another node claims
// the first that nobody has, for good, in a register of the cluster. Whoever is new must learn first, from those
// who are there, where that register is: the founders that it knows of may all be gone.
func (n *node) takeSlot(ctx context.Context, d *dataPath, learn func()) error {
	slot, err := n.ownSlot(d.founding)
	if err != nil {
		return err
	}
	for next := len(d.founding.Nodes); slot < 0; {
		if next >= int(noSlot) {
			return fmt.Errorf("all %d slots of cluster %s have been given away", next, d.founding.ClusterID)
		}
		learn()
		owner, err := d.coordinator.Decide(ctx, placement.SlotKey(uint16(next)), []byte(n.identity.Node))
		switch {
		case err != nil:
			n.log.Debug("slot not decided", "slot", next, "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(slotPause):
			}
		case string(owner) == string(n.identity.Node):
			slot = next
			if err := n.keepSlot(uint16(slot)); err != nil {
				return err
			}
			n.log.Info("slot taken", "slot", slot)
		default:
			next++
		}
	}
	d.coordinator.SetSlot(uint16(slot))
	n.membership.SetSlot(uint16(slot))
	return nil
}

// ownSlot is the slot this node knows to have, or -1.
func (n *node) ownSlot(f ring.Founding) (int, error) {
	if i := slices.IndexFunc(f.Nodes, func(o ring.Node) bool { return o.ID == n.identity.Node }); i >= 0 {
		return i, nil
	}
	b, err := n.store.Meta(slotName)
	if err != nil {
		return 0, fmt.Errorf("slot of this node: %w", err)
	}
	if len(b) != 2 {
		return -1, nil
	}
	return int(binary.BigEndian.Uint16(b)), nil
}

func (n *node) keepSlot(slot uint16) error {
	done := make(chan error, 1)
	n.store.PutMeta(slotName, binary.BigEndian.AppendUint16(nil, slot), told(func(err error) { done <- err }))
	return <-done
}

type told func(error)

// Committed implements the store's callback.
func (f told) Committed(err error) { f(err) }

// drain hands over what this node holds, and returns when it holds nothing, when there is nobody to
// take it, or when KAI_DRAIN_TIMEOUT is over, or it is time for the rest before the machine ends (zero: nobody knows when). Everything must run on meanwhile.
func (n *node) drain(machineEnds time.Time) {
	n.stopping.Store(true)
	d := n.data.Load()
	if d == nil || n.cfg.DrainTimeout == 0 {
		return
	}
	began, total, timeout := time.Now(), n.holds(d), n.cfg.DrainTimeout
	if !machineEnds.IsZero() {
		timeout = min(timeout, machineEnds.Sub(began)-stopsWithin)
	}
	close(n.leaves)
	defer func() { n.leaveSnapshot(d, timeout-time.Since(began)) }()
	if why := n.cannotDrain(d); total == 0 || why != "" {
		n.log.Info("nothing is handed over", "partitions", total, "reason", why)
		return
	}
	n.log.Info("node drains", "partitions", total, "timeout", timeout.Round(time.Second).String())
	n.draining.Store(true)
	n.membership.SetDraining(true)
	report := began
	for left := total; left > 0; left = n.holds(d) {
		time.Sleep(50 * time.Millisecond)
		now := time.Now()
		if now.Sub(began) > timeout {
			n.log.Warn("drain is not complete: what this node still holds has fewer replicas until others replace it",
				"partitions", left, "after", now.Sub(began).Round(time.Millisecond).String())
			return
		}
		if now.Sub(report) > 5*time.Second {
			report = now
			if why := n.cannotDrain(d); why != "" { // others stop as well; new ones may come
				n.log.Warn("drain waits for nodes that can take what this one holds", "partitions", left, "of", total, "reason", why, "gives_up_after", (timeout - now.Sub(began)).Round(time.Second).String())
			} else {
				n.log.Info("node drains", "partitions", left, "of", total)
			}
		}
	}
	n.log.Info("drained", "partitions", total, "after", time.Since(began).Round(time.Millisecond).String())
}

// leaveSnapshot waits until what this node has uploaded of a snapshot under way is named in the bucket, if there is one; not for long: the
// bucket may be out, and the others can upload it again.
func (n *node) leaveSnapshot(d *dataPath, left time.Duration) {
	if !d.backups.taking.Load() {
		return
	}
	select {
	case <-d.backups.left:
	case <-time.After(min(left, leavesWithin)):
		n.log.Warn("what this node has uploaded of a snapshot is uploaded again by others")
	}
}

// holds counts the partitions that this node is a replica of.
func (n *node) holds(d *dataPath) (count int) {
	snapshot := d.table.Snapshot()
	for p := range snapshot.Len() {
		if snapshot.At(ring.Partition(p)).Has(n.identity.Node) {
			count++
		}
	}
	return count
}

// cannotDrain says why nobody can take what this node holds.
func (n *node) cannotDrain(d *dataPath) string {
	others := 0
	for _, info := range n.membership.View().Nodes {
		if info.ID != n.identity.Node && info.Alive && info.Slot >= 0 && !info.Draining {
			others++
		}
	}
	if others < d.founding.Quorum.N {
		return fmt.Sprintf("%d other nodes for %d replicas", others, d.founding.Quorum.N)
	}
	if !d.replica.Healthy() {
		return "this node does not vote"
	}
	return ""
}
