//go:build linux

package e2e

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// TestPartitions cuts three nodes off from each other in all ways, while clients reach each of them,
// and checks the history as TestLinearizable does. Durability is interval: no machine stops here, so
// it must be as good.
func TestPartitions(t *testing.T) {
	wanted(t)
	needsRoot(t, "make network namespaces")
	needsTool(t, "ip", "iproute2")
	needsTool(t, "nsenter", "util-linux")
	if os.Getenv(insideNamespace) == "" {
		inNamespace(t)
		return
	}
	c := prepare(t, 3, "KAI_DURABILITY=interval")
	w := wire(t, c)
	c.found()
	t.Run("majority goes on", func(t *testing.T) { majorityGoesOn(c.in(t), w) })
	n := &nemesis{c: c}
	torture(t, c, n, func(ctx context.Context) error { return n.partitions(ctx, w) })
}

// majorityGoesOn isolates one node: the two others must serve writes and reads, the lonely one must
// acknowledge no write and answer no read, and after healing all agree.
func majorityGoesOn(c *cluster, w *network) {
	keys := c.fill(0, "before", 100)
	a, b, lonely := c.nodes[0], c.nodes[1], c.nodes[2]
	n := &nemesis{c: c}
	if err := n.cut(w, lonely, a, b); err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, slow, "the majority serves", func() error {
		return (&cluster{nodes: []*node{a, b}}).serves()
	})
	keys = append(keys, c.fill(1, "during", 100)...)
	cl := c.client(2)
	for _, q := range []command{{verb: "set", key: "before-0", value: "lie"}, {verb: "get", key: "before-0"}, {verb: "get", key: "during-0"}} {
		if r, ok := cl.do(q); r.fate == definite || r.fate == senseless || !ok {
			c.t.Errorf("the isolated node answered %s with %s%s, and it cannot know", q.verb, r.word, r.why)
		}
	}
	if err := w.heal(c); err != nil {
		c.t.Fatal(err)
	}
	c.again()
	// The isolated node said "not applied" or "unknown" to its set; if unknown, it may show now.
	c.holds(keys[1:])
}

// partitions cuts the network in one way after the other until ctx ends, and heals it.
func (n *nemesis) partitions(ctx context.Context, w *network) error {
	for {
		from := n.h.now()
		order := n.rng.Perm(len(n.c.nodes))
		a, b, c := n.c.nodes[order[0]], n.c.nodes[order[1]], n.c.nodes[order[2]]
		var what string
		var err error
		switch n.rng.IntN(8) {
		case 0, 1:
			what, err = a.name+" alone", n.cut(w, a, b, c)
		case 2:
			what, err = a.name+" hears nobody", errors.Join(w.drop(a, b), w.drop(a, c))
		case 3:
			what, err = "nobody hears "+a.name, errors.Join(w.drop(b, a), w.drop(c, a))
		case 4:
			what, err = a.name+" and "+b.name+" apart, both reach "+c.name, n.cut(w, a, b)
		case 5:
			what, err = a.name+" does not hear "+b.name, w.drop(a, b)
		case 6:
			what, err = "all apart", errors.Join(n.cut(w, a, b, c), n.cut(w, b, c))
		case 7:
			what, err = a.name+" unplugged, kill -9 "+b.name, w.plug(order[0], false)
			b.kill()
		}
		if err != nil {
			return err
		}
		n.rest(ctx, 300*time.Millisecond, 5*time.Second)
		n.h.fault(from, "%s", what)
		if err := errors.Join(w.heal(n.c), n.c.revive()); err != nil {
			return err
		}
		if n.rest(ctx, 200*time.Millisecond, 3*time.Second); ctx.Err() != nil {
			return nil
		}
	}
}

// cut keeps node a and each of the others from hearing each other.
func (n *nemesis) cut(w *network, a *node, others ...*node) error {
	var errs []error
	for _, o := range others {
		errs = append(errs, w.drop(a, o), w.drop(o, a))
	}
	return errors.Join(errs...)
}
