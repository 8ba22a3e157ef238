package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kai/node/console"
	"kai/node/message"
	"kai/node/placement"
	"kai/node/ring"
)

const (
	// recoverTimeout bounds one recovery, recoverAtOnce the partitions recovered side by side.
	recoverTimeout = 20 * time.Second
	recoverAtOnce  = 16
)

// answerGather answers a peer's Gather.
func (n *node) answerGather(d *dataPath, call *message.Call) {
	if m := d.mover.Load(); m != nil {
		m.AnswerGather(call)
		return
	}
	call.Reply = message.Reply{Status: message.NotVoting}
	call.Completion.Done(call)
}

// lostPartition is a partition without a quorum for good, and who is to hold it next.
type lostPartition struct {
	p    ring.Partition
	c    ring.Configuration
	loss placement.Loss
	next []ring.NodeID
}

// refused says why the partition cannot be recovered now.
func (l *lostPartition) refused() string {
	switch {
	case len(l.loss.Awaited) > 0:
		return fmt.Sprintf("node %s has not been away for KAI_REPLACE_AFTER yet: it may come back", l.loss.Awaited[0])
	case len(l.next) == 0:
		return "no node is there to hold it"
	}
	return ""
}

func (l *lostPartition) words() string {
	switch {
	case len(l.loss.Survivors) == 0:
		return "everything in it"
	case !l.loss.Acknowledged:
		return "nothing that was acknowledged"
	}
	return "what was acknowledged and is at none of the survivors: writes, and deletions"
}

// lost lists the partitions that can make no quorum any more, by what gossip has told since this node looks.
func (n *node) lost(d *dataPath) []lostPartition {
	seen := d.seen.Load()
	if seen == nil {
		return nil
	}
	now := time.Now()
	here := map[ring.NodeID]bool{}
	for _, info := range seen.look(now).Nodes {
		here[info.ID] = info.Alive
	}
	alive := func(id ring.NodeID) bool { return here[id] }
	gone := func(id ring.NodeID) bool { return !here[id] && now.Sub(seen.lastSeen(id)) >= n.cfg.ReplaceAfter }
	var all []lostPartition
	for p, c := range configurations(d) {
		loss, lost := placement.Lost(c, d.founding.Quorum, gone, alive)
		if !lost {
			continue
		}
		l := lostPartition{p: ring.Partition(p), c: c, loss: loss, next: loss.Survivors}
		if most := d.founding.Quorum.N; len(l.next) > most {
			l.next = l.next[:most]
		}
		all = append(all, l)
	}
	return all
}

// lostWithHeirs is lost, with somebody to hold what has no survivors.
func (n *node) lostWithHeirs(d *dataPath) []lostPartition {
	all := n.lost(d)
	n.appoint(d, all)
	return all
}

// appoint gives each partition without survivors one live node, that the plan would give it to. One, because it may have
// kept records from a time when it held the partition: it alone says what is there, until others have pulled from it.
func (n *node) appoint(d *dataPath, all []lostPartition) {
	var able []ring.Weighted
	for _, info := range n.membership.View().Nodes {
		if info.Alive && info.Slot >= 0 && !info.Draining {
			able = append(able, ring.Weighted{Node: info.Node, Weight: info.Weight})
		}
	}
	if len(all) == 0 || len(able) == 0 {
		return
	}
	lists := d.seen.Load().lists(configurations(d), able)
	for i := range all {
		if len(all[i].next) == 0 {
			all[i].next = lists[all[i].p][:1]
		}
	}
}

// Lost implements console.Recoverer.
func (s source) Lost() console.Recovery {
	r := console.Recovery{NodeID: string(s.n.identity.Node), Partitions: []console.LostPartition{}}
	d := s.n.data.Load()
	if d == nil {
		r.Cluster, r.Refused = s.n.cfg.Cluster, errNotFounded.Error()
		return r
	}
	r.Cluster = d.founding.Name
	if err := s.n.mayRecover(d); err != nil {
		r.Refused = err.Error()
	}
	for _, l := range s.n.lostWithHeirs(d) {
		r.Partitions = append(r.Partitions, show(l))
	}
	return r
}

// mayRecover refuses what this node must not do because it knows too little.
func (n *node) mayRecover(d *dataPath) error {
	m := d.mover.Load()
	switch {
	case m == nil || d.seen.Load() == nil:
		return errors.New("this node has no slot yet: ask another one")
	case !d.replica.Healthy():
		return errors.New("this node does not vote: ask another one")
	case !m.Informed():
		return errors.New("not all live nodes have told this one which configurations they know: wait a moment")
	}
	return nil
}

func show(l lostPartition) console.LostPartition {
	return console.LostPartition{
		Partition: int(l.p), Epoch: l.c.Epoch, Generation: int(placement.Generation(l.c.Epoch)), Members: texts(l.c.Members), Next: texts(l.c.Next),
		Survivors: texts(l.loss.Survivors), Gone: texts(l.loss.Gone), Awaited: texts(l.loss.Awaited), New: texts(l.next), Loss: l.words(), Refused: l.refused(),
	}
}

func texts(ids []ring.NodeID) []string {
	var all []string
	for _, id := range ids {
		all = append(all, string(id))
	}
	return all
}

// Recover implements console.Recoverer.
func (s source) Recover() (console.Recovery, error) {
	n, d := s.n, s.n.data.Load()
	if d == nil {
		return console.Recovery{}, errNotFounded
	}
	// One at a time: a later one must see what an earlier one did.
	d.recovering.Lock()
	defer d.recovering.Unlock()
	if err := n.mayRecover(d); err != nil {
		return console.Recovery{}, err
	}
	slot, err := n.ownSlot(d.founding)
	if err != nil || slot < 0 {
		return console.Recovery{}, fmt.Errorf("this node has no slot: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), recoverTimeout)
	defer cancel()
	lost := n.lostWithHeirs(d)
	r := console.Recovery{NodeID: string(n.identity.Node), Cluster: d.founding.Name, Partitions: make([]console.LostPartition, len(lost))}
	var all sync.WaitGroup
	room := make(chan struct{}, recoverAtOnce)
	for i, l := range lost {
		r.Partitions[i] = show(l)
		if r.Partitions[i].Refused != "" {
			continue
		}
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			n.recoverOne(ctx, d, uint16(slot), l, &r.Partitions[i])
		})
	}
	all.Wait()
	return r, nil
}

func (n *node) recoverOne(ctx context.Context, d *dataPath, slot uint16, l lostPartition, shown *console.LostPartition) {
	c, err := d.mover.Load().Recover(ctx, l.p, l.c, slot, l.loss.Survivors, l.next)
	if err != nil {
		shown.Refused = err.Error()
		return
	}
	shown.Recovered, shown.Epoch, shown.Generation = true, c.Epoch, int(placement.Generation(c.Epoch))
	n.log.Warn("partition recovered: a new generation without those that are gone; what only they held is lost",
		"partition", l.p, "generation", shown.Generation, "epoch", c.Epoch, "members", c.Members, "survivors", len(l.loss.Survivors), "gone", l.loss.Gone, "loss", shown.Loss)
}

// recoveries counts the partitions that were recovered, and is the highest generation of any.
func recoveries(current []ring.Configuration) (r console.Recoveries) {
	for _, c := range current {
		if g := int(placement.Generation(c.Epoch)); g > 0 {
			r.Partitions++
			r.Generation = max(r.Generation, g)
		}
	}
	return r
}
