//go:build linux

package e2e

import (
	"context"
	"math/rand/v2"
	"time"
)

// nemesis makes things go wrong, until its context ends; then it puts everything right again.
type nemesis struct {
	c   *cluster
	h   *history
	rng *rand.Rand
}

// processes kills, pauses and restarts nodes: mostly one at a time, so that the cluster has to go
// on, sometimes two or all, when it must not, but must not lie about it either.
func (n *nemesis) processes(ctx context.Context) error {
	for {
		switch n.rng.IntN(10) {
		case 0, 1, 2:
			n.killOne(ctx)
		case 3, 4, 5:
			n.pauseOne(ctx)
		case 6:
			n.stopOne(ctx)
		case 7:
			n.killMany(ctx)
		case 8:
			n.pauseAndKill(ctx)
		case 9:
			n.pauseTwo(ctx)
		}
		if err := n.c.revive(); err != nil {
			return err
		}
		if n.rest(ctx, 200*time.Millisecond, 2500*time.Millisecond); ctx.Err() != nil {
			return nil
		}
	}
}

// rest sleeps for a random time, or until ctx ends.
func (n *nemesis) rest(ctx context.Context, least, most time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(least + time.Duration(n.rng.Int64N(int64(most-least)))):
	}
}

func (n *nemesis) any() *node { return n.c.nodes[n.rng.IntN(len(n.c.nodes))] }

// two returns different nodes.
func (n *nemesis) two() (*node, *node) {
	order := n.rng.Perm(len(n.c.nodes))
	return n.c.nodes[order[0]], n.c.nodes[order[1]]
}

func (n *nemesis) killOne(ctx context.Context) {
	from, a := n.h.now(), n.any()
	a.kill()
	n.rest(ctx, 0, 3*time.Second)
	n.h.fault(from, "kill -9 %s, then restart", a.name)
}

func (n *nemesis) stopOne(ctx context.Context) {
	from, a := n.h.now(), n.any()
	err := a.stop()
	n.rest(ctx, 0, time.Second)
	n.h.fault(from, "stop %s (%v), then restart", a.name, err)
}

func (n *nemesis) pauseOne(ctx context.Context) {
	from, a := n.h.now(), n.any()
	a.pause()
	n.rest(ctx, 50*time.Millisecond, 4*time.Second)
	a.resume()
	n.h.fault(from, "pause %s", a.name)
}

func (n *nemesis) pauseTwo(ctx context.Context) {
	from := n.h.now()
	a, b := n.two()
	a.pause()
	n.rest(ctx, 0, 500*time.Millisecond)
	b.pause()
	n.rest(ctx, 50*time.Millisecond, 2*time.Second)
	a.resume()
	n.rest(ctx, 0, 500*time.Millisecond)
	b.resume()
	n.h.fault(from, "pause %s and %s", a.name, b.name)
}

// pauseAndKill lets a node sleep through another's death, and wake up while it is away.
func (n *nemesis) pauseAndKill(ctx context.Context) {
	from := n.h.now()
	a, b := n.two()
	a.pause()
	n.rest(ctx, 0, time.Second)
	b.kill()
	n.rest(ctx, 0, time.Second)
	a.resume()
	n.rest(ctx, 0, 2*time.Second)
	n.h.fault(from, "pause %s, kill -9 %s, continue %s, restart %s", a.name, b.name, a.name, b.name)
}

// killMany kills two nodes, or all.
func (n *nemesis) killMany(ctx context.Context) {
	from := n.h.now()
	victims := n.rng.Perm(len(n.c.nodes))[:2+n.rng.IntN(2)]
	for _, v := range victims {
		n.c.nodes[v].kill()
	}
	n.rest(ctx, 0, time.Second)
	n.h.fault(from, "kill -9 %d nodes, then restart", len(victims))
}
