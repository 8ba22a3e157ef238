//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// add prepares one more node of a founded cluster; started, it finds the founders as they found each other.
func (c *cluster) add() *node {
	first := c.nodes[0]
	i := len(c.nodes)
	name := string(rune('a' + i))
	n := &node{
		name: name, ip: fmt.Sprintf("%s.%d", first.ip[:strings.LastIndex(first.ip, ".")], i+1),
		data: filepath.Join(c.dir, name), log: filepath.Join(c.dir, name+".log"), env: first.env,
	}
	c.nodes = append(c.nodes, n)
	return n
}

// join adds a node, starts it and waits until it is ready.
func (c *cluster) join() *node {
	c.t.Helper()
	n := c.add()
	c.mustStart(n)
	return n
}

// mustStart starts nodes, at once, and waits until they are ready.
func (c *cluster) mustStart(nodes ...*node) {
	c.t.Helper()
	for _, n := range nodes {
		if err := n.start(); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, n := range nodes {
		if err := n.awaitReady(slow); err != nil {
			c.t.Fatal(err)
		}
	}
}

// leave has a node hand over what it holds, and end.
func (c *cluster) leave(n *node) {
	c.t.Helper()
	if own, err := n.own(); err != nil || own.Partitions == 0 {
		c.t.Fatalf("node %s holds %d partitions before it leaves: %v", n.name, own.Partitions, err)
	}
	before := len(n.logged())
	if err := n.end(syscall.SIGTERM, 3*slow); err != nil {
		c.t.Fatalf("node %s leaves: %v", n.name, err)
	}
	if !strings.Contains(n.logged()[before:], `"msg":"drained"`) {
		c.t.Errorf("node %s has not handed over what it held", n.name)
	}
}

// TestElastic grows a cluster from three nodes to four and then to six, kills one and waits for its
// replacement, and starts it again, while clients work; it checks their histories and what was
// acknowledged.
func TestElastic(t *testing.T) {
	const partitions = 256
	s := seed(t)
	c := start(t, 3, fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_REPLACE_AFTER=3s")
	l := c.load(s, c.nodes[:2]...)
	step := func(what string, f func()) {
		t.Helper()
		began := time.Now()
		from := l.h.now()
		f()
		eventually(t, 2*slow, what, func() error { return c.balanced(3 * partitions) })
		l.h.fault(from, "%s", what)
		t.Logf("%s: balanced after %.1f s", what, time.Since(began).Seconds())
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
	}
	step("one node joins", func() { c.join() })
	step("two nodes join at once", func() { c.mustStart(c.add(), c.add()) })
	step("a node dies", func() { c.nodes[2].kill() })
	step("it comes back", func() { c.mustStart(c.nodes[2]) })
	step("a node leaves", func() { c.leave(c.nodes[3]) })
	step("one leaves while another joins", func() {
		var leaves sync.WaitGroup
		leaves.Go(func() { c.leave(c.nodes[4]) })
		c.join()
		leaves.Wait()
	})
	l.verify(t, c)
}
