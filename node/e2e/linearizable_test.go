//go:build linux

package e2e

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// TestLinearizable runs clients against three nodes that are killed, paused and restarted, and
// checks that all they heard fits one order of commands per key.
func TestLinearizable(t *testing.T) {
	c := start(t, 3)
	n := &nemesis{c: c}
	torture(t, c, n, n.processes)
}

// torture runs a workload while faults are made, then heals the cluster, reads everything back
// through every node, and checks the history.
func torture(t *testing.T, c *cluster, n *nemesis, faults func(context.Context) error) {
	t.Helper()
	s := seed(t)
	h := newHistory()
	n.h, n.rng = h, rand.New(rand.NewPCG(s, 1<<20))
	w := &workload{clients: 12, keys: 2, pause: 6 * time.Millisecond, turn: 2 * time.Second, h: h, seed: s}
	for _, n := range c.nodes {
		w.addrs = append(w.addrs, n.client())
	}
	ctx, cancel := context.WithTimeout(t.Context(), seconds(t, 1))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- faults(ctx) }()
	w.run(ctx)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.again()
	answered, want := w.readAll(), len(h.byKey())*len(c.nodes)
	h.verify(t)
	if answered < want {
		t.Errorf("%d of %d reads were answered by the healed cluster", answered, want)
	}
	if h.fates[definite] < 200 {
		t.Errorf("%d definite replies in all: the cluster hardly served, so this test shows nothing", h.fates[definite])
	}
}
