//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// planner is the node whose turn it is to plan: the first of the live ones by id.
func (c *cluster) planner() *node {
	c.t.Helper()
	return slices.MinFunc(c.live(), func(a, b *node) int {
		return strings.Compare(c.mustOwn(a).ID, c.mustOwn(b).ID)
	})
}

// moves counts the configurations that a node has had decided, if it logs at debug.
func (n *node) moves() int { return strings.Count(n.logged(), `"msg":"partition moves"`) }

// amid waits until partitions move to a node that joins, some have arrived, and most have not.
func (c *cluster) amid(newcomer *node) {
	c.t.Helper()
	for end := time.Now().Add(slow); ; time.Sleep(5 * time.Millisecond) {
		if s, err := newcomer.status(); err == nil && s.Moving > 0 {
			for _, o := range s.Nodes {
				if o.ID == s.NodeID && o.Partitions > 3 {
					return
				}
			}
		}
		if time.Now().After(end) {
			c.t.Fatalf("no partition moves to node %s", newcomer.name)
		}
	}
}

// waitsFor is what a node that drives a move logs of a member that does not pull.
var waitsFor = regexp.MustCompile(`node (\w+) has not pulled partition (\d+): unreachable`)

// TestDriverDies kills, while partitions move to a node that joins, first the node that planned that, and
// in a second go one that drives moves. The others finish without it, and it comes back.
func TestDriverDies(t *testing.T) {
	const partitions = 128
	s := seed(t)
	// Not replaced meanwhile: who is dead stays a member of what does not move away from it.
	c := start(t, 3, fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_MOVES=2", "KAI_LOG_LEVEL=debug")
	l := c.load(s, c.nodes...)
	for _, part := range []string{"planner", "driver"} {
		planner := c.planner()
		newcomer := c.add()
		if err := newcomer.start(); err != nil {
			t.Fatal(err)
		}
		c.amid(newcomer)
		victim := planner
		if part == "driver" {
			// The one that has most moves behind it, but the planner, has one before it.
			victim = slices.MaxFunc(c.nodes[:3], func(a, b *node) int {
				if a == planner || b == planner {
					return map[bool]int{true: -1, false: 1}[a == planner]
				}
				return a.moves() - b.moves()
			})
		}
		dead, err := victim.status()
		if err != nil {
			t.Fatal(err)
		}
		from := l.h.now()
		victim.kill()
		died := time.Now()
		st, err := newcomer.status()
		if err != nil {
			t.Fatal(err)
		}
		own := c.mustOwn(newcomer).Partitions
		if least := 3 * partitions / len(c.nodes) * 9 / 10; own >= least {
			t.Fatalf("the newcomer held %d of its %d partitions when the %s died: too late to show anything", own, least, part)
		}
		eventually(t, slow, "the others finish", func() error { return c.finished(newcomer, partitions, dead.NodeID) })
		t.Logf("the %s dies with %d partitions on their way and %d arrived; the others finish in %.1f s", part, st.Moving, own, time.Since(died).Seconds())
		l.h.fault(from, "kill -9 the %s", part)
		c.mustStart(victim)
		eventually(t, slow, "shares", func() error { return c.balanced(3 * partitions) })
	}
	l.verify(t, c)
}

// finished reports why moves still go on, or why the newcomer has not its share. A move to the dead node itself, if there is one, waits until that is
// back: it is to be a member, and has not pulled.
func (c *cluster) finished(newcomer *node, partitions int, dead string) error {
	var errs []error
	waits := map[string]bool{} // partitions
	for _, n := range c.live() {
		for _, word := range waitsFor.FindAllStringSubmatch(n.logged(), -1) {
			if word[1] == dead {
				waits[word[2]] = true
			}
		}
	}
	for _, n := range c.live() {
		st, err := n.status()
		if err == nil && st.Moving > len(waits) {
			err = fmt.Errorf("node %s: %d partitions move", n.name, st.Moving)
		}
		errs = append(errs, err)
	}
	own, err := newcomer.own()
	if least := 3 * partitions / len(c.nodes) * 9 / 10; err == nil && own.Partitions < least {
		err = fmt.Errorf("the newcomer holds %d partitions, its share is %d", own.Partitions, least)
	}
	return errors.Join(append(errs, err)...)
}

// TestRollingRestart restarts all nodes, one after the other, with SIGTERM and under load: three, which
// cannot hand over, and four, which do. Clients hear nothing worse than a SERVER_ERROR that tells what
// they may do; a connection breaks only if it is to the node that ends.
func TestRollingRestart(t *testing.T) {
	for _, nodes := range []int{3, 4} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			const partitions = 64
			s := seed(t)
			c := start(t, nodes, fmt.Sprintf("KAI_PARTITIONS=%d", partitions))
			eventually(t, slow, "shares", func() error { return c.balanced(3 * partitions) })
			l := c.load(s, c.nodes...)
			began := time.Now()
			c.roll(l, 3*partitions, slow)
			t.Logf("all %d nodes restarted after %.1f s; %d connections broke in the middle of a command", nodes, time.Since(began).Seconds(), len(l.h.broken))
			l.verify(t, c)
			if most := nodes * l.clients; len(l.h.broken) > most {
				t.Errorf("%d commands got no reply, but a client has one at a time and meets %d restarts: %q", len(l.h.broken), nodes, l.h.broken)
			}
		})
	}
}

// roll restarts all nodes, each when the one before has its share again.
func (c *cluster) roll(l *load, replicas int, limit time.Duration) {
	c.t.Helper()
	for _, n := range c.live() {
		from, before := l.h.now(), len(n.logged())
		if err := n.end(syscall.SIGTERM, limit); err != nil {
			c.t.Fatalf("node %s stops: %v", n.name, err)
		}
		if drained := strings.Contains(n.logged()[before:], `"msg":"drained"`); drained != (len(c.live()) >= 3) {
			c.t.Errorf("node %s handed over: %v, with %d others", n.name, drained, len(c.live()))
		}
		c.mustStart(n)
		eventually(c.t, limit, "shares", func() error { return c.balanced(replicas) })
		l.h.fault(from, "restart %s", n.name)
	}
}
