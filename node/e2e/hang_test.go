//go:build linux

package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// soak skips the test unless the long tests were asked for.
func soak(t *testing.T) {
	t.Helper()
	wanted(t)
	if os.Getenv("KAI_E2E_SOAK") == "" {
		t.Skip("SKIPPED: takes minutes; set KAI_E2E_SOAK=1 (make soak)")
	}
}

const (
	// forgotten is longer than gossip remembers the dead (30 s): whoever comes back after it is learnt
	// again by discovery alone.
	forgotten = 2 * time.Minute
	// healing is how soon after a fault all must be as if it had never been.
	healing = 60 * time.Second
)

// TestHungNode stops a node, without ending it, for longer than gossip remembers the dead, and continues
// it: it believes that it is still what it was. Within a minute it is a member again, holds its share, and has
// what it missed.
func TestHungNode(t *testing.T) {
	soak(t)
	t.Run("not replaced", func(t *testing.T) { hang(t, 2*forgotten) })
	t.Run("replaced meanwhile", func(t *testing.T) { hang(t, 5*time.Second) })
}

func hang(t *testing.T, replaceAfter time.Duration) {
	const partitions = 64
	s := seed(t)
	c := start(t, 4, fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_REPLACE_AFTER="+replaceAfter.String())
	eventually(t, slow, "shares", func() error { return c.balanced(3 * partitions) })
	l := c.load(s, c.nodes...)
	time.Sleep(time.Second)
	hung := c.nodes[1]
	before := c.mustOwn(hung)
	from := l.h.now()
	hung.pause()
	time.Sleep(forgotten)
	st, err := c.nodes[0].status()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range st.Nodes {
		replaced := replaceAfter < forgotten
		if o.ID == before.ID && (o.Alive || replaced != (o.Partitions == 0)) {
			t.Errorf("after %v without a sign: %+v", forgotten, o)
		}
	}
	hung.resume()
	l.h.fault(from, "hang %s", hung.name)
	began := time.Now()
	time.Sleep(2 * time.Second) // clients meet the node that has just woken
	l.stop()
	c.heals(began, partitions)
	if after := c.mustOwn(hung); after.ID != before.ID || after.Boot != before.Boot || after.Partitions == 0 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	l.verify(t, c)
}

// heals waits until, within healing since began, all nodes that run are members to each other, hold their
// shares, and hold the same.
func (c *cluster) heals(began time.Time, partitions int) {
	c.t.Helper()
	since := c.passes()
	left := func() time.Duration { return healing - time.Since(began) }
	eventually(c.t, left(), "one membership, and shares", func() error { return c.balanced(3 * partitions) })
	c.t.Logf("one membership, and shares, after %.1f s", time.Since(began).Seconds())
	c.t.Cleanup(func() {
		for _, n := range c.live() {
			if all, err := n.metrics("kai_repair"); err == nil && c.t.Failed() {
				c.t.Logf("node %s: %v", n.name, all)
			}
		}
	})
	eventually(c.t, left(), "nothing differs", func() error { return c.alike(since) })
	c.t.Logf("nothing differs after %.1f s", time.Since(began).Seconds())
}
