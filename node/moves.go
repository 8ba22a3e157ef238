package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
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
	if err := n.takeSlot(ctx, d); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil
	}
	seen := newSightings(n, d)
	mover := placement.NewMover(placement.Options{
		Self: n.identity.Node, Partitions: d.founding.Partitions, Quorum: d.founding.Quorum,
		Configuration: d.table.Configuration,
		Adopt:         func(p ring.Partition, c ring.Configuration) { adopt(d.replica, p, c) },
		Peer:          func(id ring.NodeID) placement.Replica { return n.links.replica(id) },
		Local:         d.replica, Decide: d.coordinator.Decide,
		Plan: seen.plan, Gone: seen.gone, Everybody: seen.alive,
		Moves: n.cfg.Moves, Pacer: d.pacer, Timeout: moveTimeout, Tick: moveTick, Logger: n.log,
	})
	d.mover.Store(mover)
	return mover.Run(ctx)
}

// takeSlot finds out this node's slot: a founder's is its place in the founding; another node claims
// the first that nobody has, for good, in a register of the cluster.
func (n *node) takeSlot(ctx context.Context, d *dataPath) error {
	slot, err := n.ownSlot(d.founding)
	if err != nil {
		return err
	}
	for next := len(d.founding.Nodes); slot < 0; {
		if next >= int(noSlot) {
			return fmt.Errorf("all %d slots of cluster %s have been given away", next, d.founding.ClusterID)
		}
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

// sightings remembers when nodes were last seen alive. One that this process has not seen yet counts
// as seen at its start: nobody is to be replaced because an observer is young. The mover's own.
type sightings struct {
	n    *node
	d    *dataPath
	last map[ring.NodeID]time.Time
	born time.Time
	// What the last plan was made of, if nothing was to be done: then the same is not planned again at once.
	idle   bool
	serial uint64
	epochs uint64
	asked  time.Time
	// able is who may hold partitions by the last plan; nil: nobody knows.
	able map[ring.NodeID]bool
}

func newSightings(n *node, d *dataPath) *sightings {
	return &sightings{n: n, d: d, last: map[ring.NodeID]time.Time{}, born: time.Now()}
}

// alive lists the nodes that gossip holds for alive.
func (s *sightings) alive() []ring.NodeID {
	var ids []ring.NodeID
	for _, info := range s.n.membership.View().Nodes {
		if info.Alive {
			ids = append(ids, info.ID)
		}
	}
	return ids
}

// gone implements placement's Gone.
func (s *sightings) gone(id ring.NodeID) bool { return s.able != nil && !s.able[id] }

// replan is how often an idle cluster is planned anew: a node's death counts by time alone.
const replan = 2 * time.Second

// plan says where partitions should be, if this node is the first of those alive.
func (s *sightings) plan(current []ring.Configuration) [][]ring.NodeID {
	now, serial, epochs := time.Now(), s.n.membership.View().Serial, uint64(0)
	for _, c := range current {
		epochs += uint64(c.Epoch)
	}
	if s.idle && serial == s.serial && epochs == s.epochs && now.Sub(s.asked) < replan {
		return nil
	}
	s.serial, s.epochs, s.asked = serial, epochs, now
	lists := s.lists(now, current)
	s.idle = true
	for p, list := range lists {
		s.idle = s.idle && slices.Equal(list, current[p].Members)
	}
	return lists
}

func (s *sightings) lists(now time.Time, current []ring.Configuration) [][]ring.NodeID {
	s.able = nil
	zones := map[ring.NodeID]string{}
	for _, founder := range s.d.founding.Nodes {
		zones[founder.ID] = founder.Zone
	}
	held := map[ring.NodeID]bool{}
	replicas := 0
	for _, c := range current {
		for _, id := range c.Members {
			held[id] = true
		}
		replicas = max(replicas, len(c.Members))
	}
	first := true
	may := held // hold partitions
	for _, info := range s.n.membership.View().Nodes {
		zones[info.ID] = info.Zone
		if info.Slot < 0 {
			continue
		}
		if info.Alive {
			s.last[info.ID] = now
			first = first && info.ID >= s.n.identity.Node
		}
		// One that left and comes back says so anew; until then it is still leaving.
		if may[info.ID] = true; info.Draining {
			delete(may, info.ID)
		}
	}
	if !first {
		return nil
	}
	var nodes []ring.Node
	for id := range may {
		last, ok := s.last[id]
		if !ok {
			last = s.born
		}
		if now.Sub(last) < s.n.cfg.ReplaceAfter {
			nodes = append(nodes, ring.Node{ID: id, Zone: zones[id]})
		}
	}
	if len(nodes) < min(replicas, s.d.founding.Quorum.N) {
		return nil // who is dead has no substitute: it stays a member, and may come back
	}
	s.able = map[ring.NodeID]bool{}
	for _, node := range nodes {
		s.able[node.ID] = true
	}
	preferred := ring.PreferenceLists(nodes, len(current), s.d.founding.Quorum.N, s.d.founding.VNodes)
	return placement.Plan(current, preferred, nodes, s.d.founding.Quorum.N)
}

// drain hands over what this node holds, and returns when it holds nothing, when there is nobody to
// take it, or when KAI_DRAIN_TIMEOUT is over. Everything must run on meanwhile.
func (n *node) drain() {
	d := n.data.Load()
	if d == nil || n.cfg.DrainTimeout == 0 {
		return
	}
	began, total := time.Now(), n.holds(d)
	if why := n.cannotDrain(d); total == 0 || why != "" {
		n.log.Info("nothing is handed over", "partitions", total, "reason", why)
		return
	}
	n.log.Info("node drains", "partitions", total, "timeout", n.cfg.DrainTimeout.String())
	n.draining.Store(true)
	n.membership.SetDraining()
	report := began
	for left := total; left > 0; left = n.holds(d) {
		time.Sleep(50 * time.Millisecond)
		now := time.Now()
		if now.Sub(began) > n.cfg.DrainTimeout {
			n.log.Warn("drain is not complete: what this node still holds has fewer replicas until others replace it",
				"partitions", left, "after", now.Sub(began).Round(time.Millisecond).String())
			return
		}
		if now.Sub(report) > 5*time.Second {
			report = now
			n.log.Info("node drains", "partitions", left, "of", total)
		}
	}
	n.log.Info("drained", "partitions", total, "after", time.Since(began).Round(time.Millisecond).String())
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
