//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
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
		data: filepath.Join(c.dir, name), log: filepath.Join(c.dir, name+".log"), env: first.env, box: first.box,
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

// leave has a node hand over what it holds, and end, within limit.
func (c *cluster) leave(n *node, limit time.Duration) {
	c.t.Helper()
	if own, err := n.own(); err != nil || own.Partitions == 0 {
		c.t.Fatalf("node %s holds %d partitions before it leaves: %v", n.name, own.Partitions, err)
	}
	before := len(n.logged())
	if err := n.end(syscall.SIGTERM, limit); err != nil {
		c.t.Fatalf("node %s leaves: %v", n.name, err)
	}
	if !strings.Contains(n.logged()[before:], `"msg":"drained"`) {
		c.t.Errorf("node %s has not handed over what it held", n.name)
	}
}

// TestElastic loads records, and takes a cluster through all that may happen to one while clients work: it
// grows and shrinks, nodes die, come back, and come back with an empty disk. It checks the clients' histories, and
// every record at the end. RECORDS=1000000 has it do so with a million, and adds what takes longer.
func TestElastic(t *testing.T) {
	const partitions = 256
	s := seed(t)
	count := records(t)
	long := os.Getenv("RECORDS") != ""
	// Machines that copy millions of records beside each other are slow to answer, and not dead.
	limit, replaceAfter, settle := 2*slow+time.Duration(count)*time.Millisecond, 3*time.Second, time.Second
	if long {
		replaceAfter, settle = 10*time.Second, 5*time.Second
	}
	c := start(t, 3, fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_REPLACE_AFTER="+replaceAfter.String(), "KAI_DRAIN_TIMEOUT="+limit.String())
	c.loadRecords(count)
	l := c.load(s, c.nodes[:2]...)
	p := c.probe(count)
	step := func(what string, f func()) {
		t.Helper()
		p.on(c.live())
		time.Sleep(settle) // what the change before left to do is not to count as calm
		p.lap()
		time.Sleep(2*time.Second + time.Duration(rand.IntN(1000))*time.Millisecond)
		calm, _ := p.lap()
		began, before := time.Now(), c.tally()
		from := l.h.now()
		f()
		eventually(t, limit, what, func() error { return c.balanced(3 * partitions) })
		took := time.Since(began)
		l.h.fault(from, "%s", what)
		t.Logf("%s: balanced after %.1f s; %s; %s", what, took.Seconds(), c.tally().since(before, took), p.beside(calm))
	}
	step("one node joins", func() { c.join() })
	step("two nodes join at once", func() { c.mustStart(c.add(), c.add()) })
	step("a node dies", func() { c.nodes[2].kill() })
	step("it comes back", func() { c.mustStart(c.nodes[2]) })
	step("a node dies, and comes back with an empty disk", func() {
		c.nodes[2].kill()
		if err := os.RemoveAll(c.nodes[2].data); err != nil {
			t.Fatal(err)
		}
		c.mustStart(c.nodes[2])
	})
	step("a node leaves", func() { c.leave(c.nodes[3], limit) })
	step("one leaves while another joins", func() {
		var leaves sync.WaitGroup
		leaves.Go(func() { c.leave(c.nodes[4], limit) })
		c.join()
		leaves.Wait()
	})
	if long {
		step("a node leaves: four are left", func() { c.leave(c.nodes[5], limit) })
		step("all restart, one after the other", func() { c.roll(l, 3*partitions, limit) })
		step("a node joins, the driver dies in the middle", func() {
			newcomer, planner := c.add(), c.planner()
			if err := newcomer.start(); err != nil {
				t.Fatal(err)
			}
			c.amid(newcomer)
			planner.kill()
			c.mustStart(planner)
		})
	}
	p.end()
	l.verify(t, c)
	c.checkRecords(count)
}
