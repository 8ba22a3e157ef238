package node

import (
	"context"
	"time"

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

// repair compares what this node holds with its peers, until ctx ends. The first pass begins at once: a
// node that starts may have missed something.
func (n *node) repair(ctx context.Context, d *dataPath) error {
	return d.repairer.Run(ctx)
}

func (n *node) newRepairer(d *dataPath) *repair.Repairer {
	return repair.New(repair.Options{
		Self: n.identity.Node, Partitions: d.founding.Partitions, Configuration: d.table.Configuration,
		Peer:   func(id ring.NodeID) repair.Replica { return n.links.replica(id) },
		Chosen: d.coordinator.Chosen, Rewrite: d.coordinator.Rewrite, Local: d.replica, Drop: d.replica.Drop, PurgeAge: n.cfg.PurgeAfter,
		Timeout: repairTimeout, Pause: repairPause, Rest: repairRest, Logger: n.log,
	})
}
