package nodetest

import (
	"slices"
	"time"

	"kai/node/message"
	"kai/node/placement"
	"kai/node/quorum"
	"kai/node/replica"
	"kai/node/ring"
)

// moverTick is how often movers look for something to do, if the scenario does not say.
const moverTick = 7 * time.Millisecond

// openTable opens the configurations on a node's disk, and has its coordinator and mover hear of new ones
// as those of a whole node do.
func (c *Cluster) openTable(inc *incarnation) *placement.Table {
	confs := slices.Clone(c.first)
	for p := range confs {
		enc, _ := inc.volume.Meta(replica.ConfigurationName(ring.Partition(p)))
		if enc == nil {
			continue
		}
		var err error
		if confs[p], err = placement.DecodeConfiguration(enc); err != nil {
			panic(err)
		}
	}
	f := ring.Founding{Partitions: c.Partitions, Quorum: c.Quorum}
	t, err := placement.New(f, confs, func(p ring.Partition, conf ring.Configuration) {
		inc.coordinator.SetRoutes(inc.coordinator.Routes().With(p, conf, inc.peer))
		inc.mover.Wake(p)
	})
	if err != nil {
		panic(err)
	}
	return t
}

// configurations are those the node knows.
func (i *incarnation) configurations() []ring.Configuration {
	s := i.table.Snapshot()
	confs := make([]ring.Configuration, s.Len())
	for p := range confs {
		confs[p] = s.At(ring.Partition(p))
	}
	return confs
}

// peer is the way to a node.
func (i *incarnation) peer(id ring.NodeID) quorum.Replica {
	if id == i.id {
		return i.replica
	}
	return i.links[i.c.index[id]]
}

// adopt takes a configuration by the door of the replica, which makes it durable first.
func (i *incarnation) adopt(p ring.Partition, conf ring.Configuration) {
	call := &message.Call{Completion: completion(func(*message.Call) {})}
	call.Request = message.Request{Kind: message.Configure, Partition: p, Configuration: conf}
	i.replica.Send(call)
}

// moving is what a node's mover is made of.
func (i *incarnation) moving() placement.Options {
	c := i.c
	o := placement.Options{
		Self: i.id, Partitions: c.Partitions, Quorum: c.Quorum, Configuration: i.table.Configuration, Adopt: i.adopt,
		Peer:  func(id ring.NodeID) placement.Replica { return i.peer(id) },
		Local: i.replica, Decide: i.coordinator.Decide,
		Moves: 4, Timeout: c.Timeout / 2, Tick: c.Tick + time.Duration(i.index)*time.Microsecond, Logger: c.logs, Without: c.WithoutMoving,
	}
	if c.Snapshots {
		o.Preload = i.preload
	}
	if c.Gossiping {
		o.Everybody = c.alive
	}
	if c.Plan {
		o.Plan, o.Gone, o.Everybody = i.plan, c.gone, c.alive
	}
	return o
}

// plan is placement's Plan: the first of the holders that live plans for all of them.
func (i *incarnation) plan(current []ring.Configuration) [][]ring.NodeID {
	holders := *i.c.holders.Load()
	if alive := i.c.alive(); len(alive) == 0 || alive[0] != i.id {
		return nil
	}
	preferred := ring.WeightedLists(holders, len(current), i.c.Quorum.N, 32)
	return placement.Plan(current, preferred, holders, i.c.Quorum.N)
}

// gone is placement's Gone.
func (c *Cluster) gone(id ring.NodeID) bool {
	return !slices.ContainsFunc(*c.holders.Load(), func(n ring.Weighted) bool { return n.ID == id })
}

// alive lists the nodes whose process runs, by id; not to be changed.
func (c *Cluster) alive() []ring.NodeID { return *c.living.Load() }

// count finds out who is alive, after a start or a crash.
func (c *Cluster) count() {
	var ids []ring.NodeID
	for _, n := range c.nodes {
		if inc := n.current(); inc != nil && inc.alive() {
			ids = append(ids, n.id)
		}
	}
	c.living.Store(&ids)
}
