package membership

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"kai/node/ring"
)

// delegate is memberlist's view of a Membership. memberlist calls most of it with its lock held:
// nothing here blocks, and nothing calls memberlist.
type delegate struct{ m *Membership }

// NodeMeta tells what to gossip about this node. New has made sure that it fits: memberlist
// panics if it does not.
func (d delegate) NodeMeta(limit int) []byte {
	b := d.m.ownMeta()
	if len(b) > limit {
		return nil
	}
	return b
}

// NotifyMsg hands a message over to the loop; when that is too far behind, the message is dropped:
// what matters is said again.
func (d delegate) NotifyMsg(b []byte) {
	select {
	case d.m.inbox <- slices.Clone(b):
	default:
		d.m.stats.dropped.Add(1)
	}
}

func (delegate) GetBroadcasts(int, int) [][]byte   { return nil }
func (delegate) LocalState(bool) []byte            { return nil }
func (delegate) MergeRemoteState(_ []byte, _ bool) {}

// NotifyAlive decides who is let in; an error keeps the node out.
func (d delegate) NotifyAlive(node *memberlist.Node) error {
	m, id := d.m, ring.NodeID(node.Name)
	told, err := parseMeta(node.Meta)
	if err == nil && !validID(id) {
		err = errors.New("bad node id")
	}
	if id == m.options.Self.ID {
		if err == nil {
			if err := m.doubt(start{told.Boot, told.Process}); err != nil {
				m.fail(err)
			}
		}
		return nil // memberlist refutes what is said of this node
	}
	if err == nil {
		err = m.admit(id, node, told)
	}
	if err != nil && !errors.Is(err, errOldBoot) { // old news is no reason to call a person
		m.stats.refused.Add(1)
		m.complain(id, node.Address(), err)
	}
	return err
}

// errOldBoot is old gossip, or a node whose data directory was rolled back.
var errOldBoot = errors.New("boot count is old")

// admit checks a node that gossip holds for alive against all that must not come together.
func (m *Membership) admit(id ring.NodeID, node *memberlist.Node, told meta) error {
	is := start{told.Boot, told.Process}
	if seen, ok := m.members.admit(id, is); !ok {
		// Old gossip, or a disk that was rolled back; in the second case the node must know.
		to := memberlist.Node{Name: node.Name, Addr: slices.Clone(node.Addr), Port: node.Port}
		m.post(to, message{Kind: outdated, From: m.options.Self.ID, Boot: seen.boot, Process: seen.process})
		return fmt.Errorf("%w: %s", errOldBoot, is.against(seen))
	}
	own := m.clusterID()
	if own != "" && told.ClusterID != "" && own != told.ClusterID {
		m.members.update(id, func(o *member) { o.foreign = true })
		return fmt.Errorf("it belongs to cluster %s, this node to cluster %s: clusters never merge; remove it from the discovery of this cluster, or name the clusters differently", told.ClusterID, own)
	}
	if settings := m.options.settings(); told.Settings != settings {
		m.members.update(id, func(o *member) { o.foreign = true })
		if own == "" && told.ClusterID != "" {
			m.fail(fmt.Errorf("membership: this node is configured with %s, but node %s at %s belongs to cluster %s, which was founded with %s: cluster-wide settings are fixed at founding; configure this node with the cluster's values",
				settings, id, node.Address(), told.ClusterID, told.Settings))
		}
		return fmt.Errorf("it is configured with %s, this node with %s: cluster-wide settings must be the same on all nodes", told.Settings, settings)
	}
	return nil
}

// against says how a start disagrees with the one that was seen.
func (s start) against(seen start) string {
	if s.boot == seen.boot {
		return fmt.Sprintf("boot count %d, which another process bore", s.boot)
	}
	return fmt.Sprintf("boot count %d, but %d was seen", s.boot, seen.boot)
}

// doubt compares this process with a start of its own id that was seen, and returns why it must not go
// on. Of two processes with one boot count the younger one ends.
func (m *Membership) doubt(seen start) error {
	self := &m.options.Self
	own := start{self.Boot, self.Process}
	switch {
	case !own.before(seen):
		return nil
	case own.boot < seen.boot:
		return fmt.Errorf("membership: node %s starts with boot count %d, but peers have seen %d: the data directory was rolled back, and with it promises this node made; give it an empty data directory", self.ID, own.boot, seen.boot)
	case time.Since(m.born) < newcomer:
		return fmt.Errorf("membership: node %s starts with boot count %d, but peers have seen another process with it: the data directory was rolled back, and with it promises this node made, or is a copy; give it an empty data directory", self.ID, own.boot)
	}
	m.complain(self.ID, "", fmt.Errorf("another process bears the id and boot count %d of this one: a copied data directory", own.boot))
	return nil
}

// NotifyJoin, NotifyUpdate and NotifyLeave follow NotifyAlive, in order.
func (d delegate) NotifyJoin(node *memberlist.Node) {
	d.NotifyUpdate(node)
	d.m.log.Info("node alive", "node", node.Name, "addr", node.Address())
}

// NotifyUpdate is a change of what a node tells of itself.
func (d delegate) NotifyUpdate(node *memberlist.Node) {
	if told, err := parseMeta(node.Meta); err == nil {
		d.m.members.seen(node, told, time.Now())
	}
	if ring.NodeID(node.Name) == d.m.options.Self.ID {
		meta := string(node.Meta)
		d.m.told.Store(&meta)
	}
}

// NotifyLeave is a node that died or left.
func (d delegate) NotifyLeave(node *memberlist.Node) {
	moved := false
	d.m.members.update(ring.NodeID(node.Name), func(o *member) {
		if o.info.Alive {
			o.info.Alive, o.since = false, time.Now()
		}
		moved = o.moved != ""
	})
	if moved {
		signal(d.m.wake)
	}
	if ring.NodeID(node.Name) == d.m.options.Self.ID {
		return // this node stops, and says so itself
	}
	if node.State == memberlist.StateLeft {
		d.m.log.Info("node left", "node", node.Name, "addr", node.Address())
	} else {
		d.m.log.Warn("node dead", "node", node.Name, "addr", node.Address())
	}
}

// newcomer is how young a process is that ends when it finds its twin; an older one only complains,
// so that a copy of its data directory, started by mistake, cannot end it.
const newcomer = time.Minute

// NotifyConflict is one id at two addresses. Mostly a node has restarted at a new address before
// gossip has noticed the death of its old process: the new one is joined as soon as it does.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	was, err1 := parseMeta(existing.Meta)
	is, err2 := parseMeta(other.Meta)
	if err1 != nil || err2 != nil {
		return
	}
	id := ring.NodeID(other.Name)
	switch {
	case is.Boot == was.Boot && id == d.m.options.Self.ID && time.Since(d.m.born) < newcomer:
		d.m.fail(fmt.Errorf("membership: another process, at %s, runs with the id %s and boot count %d of this node: its data directory is a copy; give one of them an empty data directory", other.Address(), id, was.Boot))
	case is.Boot == was.Boot:
		d.m.complain(id, other.Address(), fmt.Errorf("two processes have the same id and boot count, the other at %s: a copied data directory", existing.Address()))
	case is.Boot > was.Boot && id != d.m.options.Self.ID:
		d.m.members.update(id, func(o *member) { o.moved = other.Address() })
	}
}
