//go:build linux

package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// TestLongPartition cuts four nodes apart for longer than gossip remembers the dead, and heals the network:
// within a minute there is one membership, all replicas hold the same, and what was written and deleted
// meanwhile is so through every node.
func TestLongPartition(t *testing.T) {
	soak(t)
	needsRoot(t, "make network namespaces")
	needsTool(t, "ip", "iproute2")
	needsTool(t, "nsenter", "util-linux")
	if os.Getenv(insideNamespace) == "" {
		inNamespace(t)
		return
	}
	const partitions = 64
	s := seed(t)
	c := prepare(t, 4, fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_REPLACE_AFTER=20s")
	w := wire(t, c)
	c.found()
	t.Run("one alone", func(t *testing.T) { partitioned(c.in(t), w, s, partitions, c.nodes[:3], c.nodes[3:]) })
	t.Run("two and two", func(t *testing.T) { partitioned(c.in(t), w, s, partitions, c.nodes[:2], c.nodes[2:]) })
}

func partitioned(c *cluster, w *network, seed uint64, partitions int, here, there []*node) {
	name := c.t.Name()[len("TestLongPartition/"):]
	eventually(c.t, 2*slow, "shares", func() error { return c.balanced(3 * partitions) })
	key := func(i int) string { return fmt.Sprintf("%s-%d", name, i) }
	all := c.client(0)
	for i := range 40 {
		must(c.t, all, "STORED", command{verb: "set", key: key(i), value: "old"})
	}
	l := c.load(seed, c.nodes...)
	from := l.h.now()
	for _, a := range here {
		if err := (&nemesis{c: c}).cut(w, a, there...); err != nil {
			c.t.Fatal(err)
		}
	}
	cut := time.Now()
	if len(here) > len(there) { // whoever is alone serves nothing; of two and two each half serves a half
		eventually(c.t, slow, "the majority serves", (&cluster{nodes: here}).serves)
		for i := range 20 {
			must(c.t, all, "DELETED", command{verb: "delete", key: key(i)})
			must(c.t, all, "STORED", command{verb: "set", key: key(20 + i), value: "new"})
		}
	}
	time.Sleep(time.Until(cut.Add(forgotten)))
	for _, n := range c.nodes {
		st, err := n.status()
		if err != nil {
			c.t.Fatal(err)
		}
		alive := 0
		for _, o := range st.Nodes {
			if o.Alive {
				alive++
			}
		}
		if alive >= len(c.nodes) {
			c.t.Errorf("node %s, cut off, holds %d nodes for alive", n.name, alive)
		}
	}
	if err := w.heal(c); err != nil {
		c.t.Fatal(err)
	}
	l.h.fault(from, "%s", name)
	began := time.Now()
	time.Sleep(2 * time.Second)
	l.stop()
	c.heals(began, partitions)
	if len(here) > len(there) {
		c.overwritten(key)
	}
	l.verify(c.t, c)
}

// overwritten checks, through every node, that of 40 keys the first half is deleted, the other written over.
func (c *cluster) overwritten(key func(int) string) {
	c.t.Helper()
	for _, n := range c.nodes {
		for i := range 40 {
			found, err := n.readBack([]string{key(i)})
			if v, ok := found[key(i)]; err != nil || ok != (i >= 20) || ok && v != "new" {
				c.t.Errorf("through node %s: %s is %q, %v", n.name, key(i), v, err)
			}
		}
	}
}

// must repeats a command until its reply is the wanted one; a delete may find that it was done before.
func must(t *testing.T, cl *client, word string, q command) {
	t.Helper()
	eventually(t, slow, q.verb+" "+q.key, func() error {
		if r, _ := cl.do(q); r.word != word && (q.verb != "delete" || r.word != "NOT_FOUND") {
			return fmt.Errorf("%s%s", r.word, r.why)
		}
		return nil
	})
}
