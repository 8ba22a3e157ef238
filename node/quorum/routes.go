package quorum

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Replica takes the register's messages for one node: the local replica, or the link to a peer.
type Replica interface {
	// Send never blocks for long. call.Completion.Done is called exactly once, perhaps before Send
	// returns. The request's slices need to stay valid until Send returns.
	Send(call *message.Call)
	// Flush pushes out what Send gathered.
	Flush()
	// Healthy is a hint: false when the node has not been heard of lately or does not vote.
	Healthy() bool
}

// Reader is a Replica that can answer reads from memory, at once: the local one.
type Reader interface {
	// ReadNow is message.Read: with the ballot of key, and its record appended to dst. known=false:
	// only Send can tell.
	ReadNow(dst []byte, p ring.Partition, epoch uint32, hash uint64, key []byte) (s message.Status, b record.Ballot, enc []byte, known bool)
	// WarmIndex and WarmEntry say that a key of that hash is about to be read so: in a batch first the
	// one for all of them, then the other.
	WarmIndex(hash uint64)
	WarmEntry(hash uint64)
}

// Group is the replicas of one partition under one configuration. Immutable.
type Group struct {
	conf     ring.Configuration
	quorum   ring.Quorum // of Members
	next     ring.Quorum // of Next, while joint
	members  []member
	old, new mask // which members are in conf.Members, and in conf.Next
	self     int  // index in members, or -1
}

type member struct {
	id      ring.NodeID
	replica Replica
	reader  Reader // replica, if it can
}

// mask is a set of members of a group, by index.
type mask uint32

func (m mask) has(i int) bool { return m&(1<<i) != 0 }
func (m mask) count() int     { return bits.OnesCount32(uint32(m)) }

// reads reports whether the set is a read quorum: of the old and, while joint, of the new members.
func (g *Group) reads(m mask) bool {
	return (m&g.old).count() >= g.quorum.R && (g.new == 0 || (m&g.new).count() >= g.next.R)
}

// writes reports whether the set is a write quorum.
func (g *Group) writes(m mask) bool {
	return (m&g.old).count() >= g.quorum.W && (g.new == 0 || (m&g.new).count() >= g.next.W)
}

// all is the set of all members.
func (g *Group) all() mask { return mask(1)<<len(g.members) - 1 }

// Routes says, for every partition, which replicas make its group. Immutable.
type Routes struct {
	// pages hold the groups, by partition; those with equal configurations may share one. With makes
	// a copy of one page: a node of a large cluster hears of many moves.
	pages  []*routesPage
	len    int
	quorum ring.Quorum
	self   ring.NodeID
}

const routesPageSize = 256

type routesPage [routesPageSize]*Group

// NewRoutes resolves the configurations, by partition, of a cluster with quorum q. replica is asked
// once a node.
func NewRoutes(confs []ring.Configuration, q ring.Quorum, self ring.NodeID, replica func(ring.NodeID) Replica) *Routes {
	r := &Routes{make([]*routesPage, (len(confs)+routesPageSize-1)/routesPageSize), len(confs), q, self}
	for i := range r.pages {
		r.pages[i] = new(routesPage)
	}
	links := map[ring.NodeID]Replica{}
	link := func(id ring.NodeID) Replica {
		if _, ok := links[id]; !ok {
			links[id] = replica(id)
		}
		return links[id]
	}
	shared := map[string]*Group{} // by epoch and members' ids
	var key []byte
	for p, conf := range confs {
		key = binary.LittleEndian.AppendUint32(key[:0], conf.Epoch)
		for _, ids := range [][]ring.NodeID{conf.Members, conf.Next} {
			for _, id := range ids {
				key = append(append(key, id...), '/')
			}
		}
		g := shared[string(key)]
		if g == nil || !g.conf.Equal(conf) {
			g = newGroup(conf, q, self, link)
			shared[string(key)] = g
		}
		r.pages[p/routesPageSize][p%routesPageSize] = g
	}
	return r
}

// Len is the number of partitions.
func (r *Routes) Len() int { return r.len }

func (r *Routes) group(p ring.Partition) *Group { return r.pages[p/routesPageSize][p%routesPageSize] }

// With returns routes in which p, which must be below Len, goes by conf, if that is newer; all other
// groups, and their ways to nodes, are those of r. It costs the same however many partitions there are.
func (r *Routes) With(p ring.Partition, conf ring.Configuration, replica func(ring.NodeID) Replica) *Routes {
	old := r.pages[p/routesPageSize]
	if conf.Epoch <= old[p%routesPageSize].conf.Epoch {
		return r
	}
	var g *Group
	for _, have := range old {
		if have != nil && have.conf.Equal(conf) {
			g = have
			break
		}
	}
	if g == nil {
		g = newGroup(conf, r.quorum, r.self, replica)
	}
	changed := *old
	changed[p%routesPageSize] = g
	next := *r
	next.pages = slices.Clone(r.pages)
	next.pages[p/routesPageSize] = &changed
	return &next
}

func newGroup(conf ring.Configuration, q ring.Quorum, self ring.NodeID, link func(ring.NodeID) Replica) *Group {
	g := &Group{conf: conf, quorum: q.For(len(conf.Members)), self: -1}
	add := func(id ring.NodeID) mask {
		for i, m := range g.members {
			if m.id == id {
				return 1 << i
			}
		}
		if id == self {
			g.self = len(g.members)
		}
		m := member{id: id, replica: link(id)}
		m.reader, _ = m.replica.(Reader)
		g.members = append(g.members, m)
		return 1 << (len(g.members) - 1)
	}
	for _, id := range conf.Members {
		g.old |= add(id)
	}
	if len(conf.Next) > 0 {
		g.next = q.For(len(conf.Next))
		for _, id := range conf.Next {
			g.new |= add(id)
		}
	}
	return g
}

// with is the member that r is, if it is one.
func (g *Group) with(r Replica) mask {
	for i := range g.members {
		if g.members[i].replica == r {
			return 1 << i
		}
	}
	return 0
}

// pick chooses the best member outside asked: this node itself, then healthy ones, those in near first,
// beginning at a place that spreads the load. -1 when none is left.
func (g *Group) pick(asked, near mask, spread uint64) int {
	if g.self >= 0 && !asked.has(g.self) && g.members[g.self].replica.Healthy() {
		return g.self
	}
	n := len(g.members)
	healthy, second := -1, -1
	for k := range n {
		i := (int(spread%uint64(n)) + k) % n
		switch {
		case asked.has(i):
		case !g.members[i].replica.Healthy():
			if second < 0 {
				second = i
			}
		case near.has(i):
			return i
		case healthy < 0:
			healthy = i
		}
	}
	if healthy >= 0 {
		return healthy
	}
	return second
}

// favoured picks the coordinator of mutations outside tried: the first healthy member in preference
// order, else the first at all. A hint, not a lease: two coordinators are safe, only slower.
func (g *Group) favoured(tried mask) int {
	second := -1
	for i, m := range g.members {
		if tried.has(i) {
			continue
		}
		if m.replica.Healthy() {
			return i
		}
		if second < 0 {
			second = i
		}
	}
	return second
}
