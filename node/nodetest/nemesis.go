package nodetest

import (
	"slices"
	"time"

	"kai/node/ring"
)

// Trouble says which faults the nemesis makes.
type Trouble struct {
	Partitions bool // cut links, some one way
	Crashes    bool // restarts that lose what was not synced
	Quick      bool // restarts so quick that nobody notices, and many
	Victim     bool // restarts hit the last node only, and often: the others stay to be rivals
	Wipes      bool // restarts with an empty disk, under the same id
	Pauses     bool // nodes that hang for a while
	Jumps      bool // clocks that jump
	Moves      bool // partitions move to other nodes, by rivals
	Epochs     bool // configurations that move on, with the same members
	Near       bool // mostly where the clients' keys are: in a large cluster most nodes hold none
}

// nemesis makes trouble until stop is closed, one fault after the other.
func (c *Cluster) nemesis(t Trouble, stop <-chan struct{}) {
	r := rng{seed: mix(c.seed, 4242)}
	var faults []func(*rng)
	add := func(on bool, f func(*rng)) {
		if on {
			faults = append(faults, f)
		}
	}
	add(t.Partitions, c.partition)
	add(t.Crashes || t.Quick, func(r *rng) { c.bounce(r, t.Quick, t.Victim, false) })
	add(t.Wipes, func(r *rng) { c.bounce(r, false, false, true) })
	add(t.Pauses, func(r *rng) { c.net.hold(c.pickNode(r), r.between(20*time.Millisecond, 300*time.Millisecond)) })
	add(t.Jumps, func(r *rng) {
		c.nodes[r.intn(len(c.nodes))].skew.Store(int64(r.between(-c.Skew, c.Skew+1)))
	})
	add(t.Epochs, c.advance)
	add(t.Moves, c.move)
	if len(faults) == 0 {
		return
	}
	lo, hi := 10*time.Millisecond, 100*time.Millisecond
	if t.Quick {
		lo, hi = 10*time.Millisecond, 90*time.Millisecond
	}
	if t.Victim {
		lo, hi = time.Millisecond, 12*time.Millisecond
	}
	for {
		timer := time.NewTimer(r.between(lo, hi))
		select {
		case <-stop:
			timer.Stop()
			return
		case <-timer.C:
			faults[r.intn(len(faults))](&r)
		}
	}
}

// pickNode picks a node for something to happen to.
func (c *Cluster) pickNode(r *rng) int {
	if len(c.hot) == 0 || r.chance(20) {
		return r.intn(len(c.nodes))
	}
	p := c.pickPartition(r)
	// By whoever is first of those that run: there is no table above all.
	for _, n := range c.nodes {
		if inc := n.current(); inc != nil && inc.alive() {
			conf := inc.table.Configuration(p)
			members := slices.Concat(conf.Members, conf.Next)
			return c.index[members[r.intn(len(members))]]
		}
	}
	return r.intn(len(c.nodes))
}

func (c *Cluster) pickPartition(r *rng) ring.Partition {
	if len(c.hot) == 0 || r.chance(10) {
		return ring.Partition(r.intn(c.Partitions))
	}
	return c.hot[r.intn(len(c.hot))]
}

func (c *Cluster) partition(r *rng) {
	var cuts [][2]int
	oneWay := r.chance(40)
	for a := range c.nodes {
		for b := range c.nodes {
			if a < b && r.chance(50) {
				cuts = append(cuts, [2]int{a, b})
				if !oneWay {
					cuts = append(cuts, [2]int{b, a})
				}
			}
		}
	}
	for _, x := range cuts {
		c.net.setCut(x[0], x[1], true)
	}
	time.Sleep(r.between(20*time.Millisecond, 150*time.Millisecond))
	for _, x := range cuts {
		c.net.setCut(x[0], x[1], false)
	}
}

func (c *Cluster) bounce(r *rng, quick, victim, wipe bool) {
	i := c.pickNode(r)
	if victim {
		i = len(c.nodes) - 1
	}
	nd := c.nodes[i]
	if nd.out || wipe && slices.ContainsFunc(c.nodes, func(n *node) bool { return n.out }) {
		return // one wiped disk is what N:R:W can bear
	}
	c.crash(i)
	if wipe {
		c.wipe(i)
		nd.out = c.Mutant&WipedVoter == 0 // a wiped disk is a new node, without a vote
	}
	if quick {
		time.Sleep(r.between(50*time.Microsecond, 500*time.Microsecond))
	} else {
		time.Sleep(r.between(5*time.Millisecond, 40*time.Millisecond))
	}
	if !nd.out {
		c.start(i)
	}
}

// advance moves one partition to its next epoch, known at first to one replica alone.
func (c *Cluster) advance(r *rng) {
	p := ring.Partition(r.intn(c.Partitions))
	newest := c.newest[p]
	if newest.Epoch > 6 {
		return
	}
	newest.Epoch++
	newest.Members = slices.Clone(newest.Members)
	slices.Reverse(newest.Members)
	i := slices.IndexFunc(c.nodes, func(n *node) bool { return n.id == newest.Members[0] })
	if inc := c.nodes[i].current(); inc != nil && inc.alive() {
		c.newest[p] = newest
		inc.adopt(p, newest)
	}
}

// move has two nodes begin to move a partition, each to nodes of its own choice, or take a move back.
func (c *Cluster) move(r *rng) {
	p := c.pickPartition(r)
	for range 2 {
		inc := c.nodes[r.intn(len(c.nodes))].current()
		var next []ring.NodeID
		for len(next) < min(c.Quorum.N, len(c.nodes)) {
			if id := nodeID(r.intn(len(c.nodes))); !slices.Contains(next, id) {
				next = append(next, id)
			}
		}
		undo := r.chance(25)
		if inc == nil || !inc.alive() {
			continue
		}
		go func() { // it fails when nobody can decide
			if undo {
				_ = inc.mover.Undo(inc.ctx, p)
			} else {
				_ = inc.mover.Move(inc.ctx, p, next)
			}
		}()
	}
}
