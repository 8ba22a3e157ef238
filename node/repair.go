package node

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"kai/node/repair"
	"kai/node/ring"
)

const (
	// repairPause is between two passes, repairRest makes a pass use a tenth of the time.
	repairPause = 30 * time.Second
	repairRest  = 9
	// repairTimeout bounds one message: sums take a scan of a partition.
	repairTimeout = 10 * time.Second
)

// repair compares what this node holds with its peers, and hands off what they missed, until ctx ends. The
// first pass begins at once: a node that starts may have missed something.
func (n *node) repair(ctx context.Context, d *dataPath) error {
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return d.repairer.Run(ctx) })
	parts.Go(func() error { return d.repairer.HandOff(ctx) })
	parts.Go(func() error { return wakeAfterHang(ctx, d.repairer.Wake) })
	return parts.Wait()
}

// peerUp hears that the link to a peer works, again perhaps: each may have missed what the other took.
func (n *node) peerUp() {
	if d := n.data.Load(); d != nil {
		d.hints.Wake()
		d.repairer.Wake()
	}
}

const (
	hangTick = 500 * time.Millisecond
	// hang is how late a tick is for this node to have been away: stopped, or its machine suspended.
	hang = 2 * time.Second
)

// wakeAfterHang calls wake when this process did not run for a while, until ctx ends. It looks at the wall clock:
// the other one stands still while a machine is suspended.
func wakeAfterHang(ctx context.Context, wake func()) error {
	ticker := time.NewTicker(hangTick)
	defer ticker.Stop()
	last := time.Now().Round(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := time.Now().Round(0)
		if now.Sub(last) > hangTick+hang {
			wake()
		}
		last = now
	}
}

func (n *node) newRepairer(d *dataPath) *repair.Repairer {
	return repair.New(repair.Options{
		Self: n.identity.Node, Partitions: d.founding.Partitions, Configuration: d.table.Configuration,
		Peer:   func(id ring.NodeID) repair.Replica { return n.links.replica(id) },
		Chosen: d.coordinator.Chosen, Rewrite: d.coordinator.Rewrite, Local: d.replica, Drop: d.replica.Drop, PurgeAge: func() time.Duration { return n.purgeAge(d) },
		Hints:   d.hints,
		Timeout: repairTimeout, Pause: repairPause, Rest: repairRest, Logger: n.log,
	})
}
