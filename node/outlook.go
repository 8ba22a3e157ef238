package node

import (
	"slices"
	"sync"
	"time"

	"kai/node/ring"
)

// outlook is where the partitions are, and where they should be.
type outlook struct {
	current []ring.Configuration
	nodes   []ring.Weighted     // that should hold them; nil: nobody can say
	lists   [][]ring.NodeID     // what each partition's members should be; nil likewise
	moving  int                 // partitions
	planned int                 // partitions that wait to move
	left    int                 // replicas that have yet to arrive
	in, out map[ring.NodeID]int // replicas by node, on their way and planned
}

// outlooks keeps the last outlook: a plan of a large cluster takes a fraction of a second, and consoles ask often.
type outlooks struct {
	mu     sync.Mutex
	at     time.Time
	serial uint64
	epochs uint64
	last   *outlook
}

// outlook computes what this node, if it were the one that plans, would have moved. It must not be changed.
func (n *node) outlook(d *dataPath) *outlook {
	c := &d.outlooks
	c.mu.Lock()
	defer c.mu.Unlock()
	now, view, current := time.Now(), n.membership.View(), configurations(d)
	var epochs uint64
	for _, conf := range current {
		epochs += uint64(conf.Epoch)
	}
	s := d.seen.Load()
	if c.last != nil && c.serial == view.Serial && c.epochs == epochs && now.Sub(c.at) < replan && (s == nil) == (c.last.nodes == nil) {
		return c.last
	}
	var nodes []ring.Weighted
	var lists [][]ring.NodeID
	if s != nil {
		nodes = s.holders(now, s.look(now), current)
		lists = s.lists(current, nodes)
	}
	c.at, c.serial, c.epochs, c.last = now, view.Serial, epochs, newOutlook(current, nodes, lists)
	return c.last
}

// configurations are those this node knows now, by partition.
func configurations(d *dataPath) []ring.Configuration {
	snapshot := d.table.Snapshot()
	current := make([]ring.Configuration, snapshot.Len())
	for p := range current {
		current[p] = snapshot.At(ring.Partition(p))
	}
	return current
}

func newOutlook(current []ring.Configuration, nodes []ring.Weighted, lists [][]ring.NodeID) *outlook {
	o := &outlook{current: current, nodes: nodes, lists: lists, in: map[ring.NodeID]int{}, out: map[ring.NodeID]int{}}
	for p, c := range o.current {
		target := c.Next
		if o.lists != nil {
			target = o.lists[p]
		}
		arrive, leave := difference(c.Members, target)
		for _, id := range arrive {
			o.in[id]++
		}
		for _, id := range leave {
			o.out[id]++
		}
		o.left += len(arrive)
		switch {
		case len(c.Next) > 0:
			o.moving++
		case len(arrive)+len(leave) > 0:
			o.planned++
		}
	}
	return o
}

// difference is who comes and who goes when members become target; nobody if there is no target.
func difference(members, target []ring.NodeID) (arrive, leave []ring.NodeID) {
	if len(target) == 0 {
		return nil, nil
	}
	for _, id := range target {
		if !slices.Contains(members, id) {
			arrive = append(arrive, id)
		}
	}
	for _, id := range members {
		if !slices.Contains(target, id) {
			leave = append(leave, id)
		}
	}
	return arrive, leave
}
