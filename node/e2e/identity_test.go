//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWipedDisk: a node whose disk is emptied comes back as another node, at the same address. The old id
// is dead, the new one has no vote until it was let in and has pulled its share; nothing is lost.
func TestWipedDisk(t *testing.T) {
	const partitions = 64
	s := seed(t)
	c := start(t, 4, fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_REPLACE_AFTER=3s")
	l := c.load(s, c.nodes...)
	time.Sleep(time.Second)
	victim := c.nodes[3]
	before := c.mustOwn(victim)
	victim.kill()
	if err := os.RemoveAll(victim.data); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c.mustStart(victim)
	eventually(t, slow, "the new node has its share, the old one nothing", func() error { return c.balanced(3 * partitions) })
	t.Logf("balanced after %.1f s", time.Since(began).Seconds())
	after := c.mustOwn(victim)
	if after.ID == before.ID || after.Slot == before.Slot || after.Partitions == 0 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	for _, n := range c.nodes {
		st, err := n.status()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range st.Nodes {
			if o.ID == before.ID && (o.Alive || o.Partitions > 0) {
				t.Errorf("node %s holds the old id for alive: %+v", n.name, o)
			}
		}
	}
	l.verify(t, c)
}

// copyOf copies a data directory of a node that does not run.
func (c *cluster) copyOf(n *node, to string) {
	c.t.Helper()
	if err := os.RemoveAll(to); err != nil {
		c.t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(n.data)); err != nil {
		c.t.Fatal(err)
	}
}

// putBack replaces the data directory of a node by a copy.
func (c *cluster) putBack(n *node, from string) {
	c.t.Helper()
	if err := errors.Join(os.RemoveAll(n.data), os.CopyFS(n.data, os.DirFS(from))); err != nil {
		c.t.Fatal(err)
	}
}

// TestRolledBackDisk: a node whose disk is set back to what it was has forgotten what it acknowledged and
// promised. It must not take part: it ends with an error that says so, and serves nothing meanwhile. With
// its newer disk it is welcome again.
func TestRolledBackDisk(t *testing.T) {
	for name, starts := range map[string]int{"two starts back": 2, "one start back": 1} {
		t.Run(name, func(t *testing.T) {
			c := start(t, 3, "KAI_PARTITIONS=64")
			n := c.nodes[2]
			older, newer := filepath.Join(c.dir, "older"), filepath.Join(c.dir, "newer")
			stop := func() {
				t.Helper()
				if err := n.stop(); err != nil {
					t.Fatal(err)
				}
			}
			keys := c.fill(0, "before", 50)
			stop()
			c.copyOf(n, older)
			for i := range starts {
				c.mustStart(n)
				keys = append(keys, c.fill(2, fmt.Sprintf("after-%d", i), 50)...)
				stop()
			}
			c.copyOf(n, newer)

			c.putBack(n, older)
			c.refused(n)
			keys = append(keys, c.fill(0, "meanwhile", 50)...)
			c.putBack(n, newer)
			c.mustStart(n)
			c.mustServe()
			c.holds(keys)
		})
	}
}

// refused starts a node that must end with a clear error, and must not answer for the cluster before.
func (c *cluster) refused(n *node) {
	c.t.Helper()
	before := len(n.logged())
	if err := n.start(); err != nil {
		c.t.Fatal(err)
	}
	served := 0
	eventually(c.t, 30*time.Second, "the rolled-back node ends", func() error {
		if _, ok := n.running(); !ok {
			return nil
		}
		if cl, err := dial(n.client()); err == nil {
			defer cl.close()
			if r, _ := cl.do(command{verb: "get", key: "after-0-1"}); r.fate == definite {
				served++
			}
		}
		return errors.New("it runs")
	})
	var exit *exec.ExitError
	if err := n.end(0, time.Second); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		c.t.Errorf("it ended with %v, wanted is exit code 1", err)
	}
	last := strings.Split(strings.TrimSpace(n.logged()[before:]), "\n")
	if said := last[len(last)-1]; !strings.Contains(said, "rolled back") || !strings.Contains(said, "boot count") {
		c.t.Errorf("the last line of its log does not say why: %s", said)
	}
	if served > 0 {
		c.t.Errorf("it answered %d reads before it ended", served)
	}
}

// TestNewAddress: the same disk at another address is the same node, and its peers follow.
func TestNewAddress(t *testing.T) {
	for how, end := range map[string]func(*node) error{
		"kill -9":    func(n *node) error { n.kill(); return nil },
		"clean stop": (*node).stop,
	} {
		t.Run(how, func(t *testing.T) {
			const partitions = 64
			s := seed(t)
			c := start(t, 3, fmt.Sprintf("KAI_PARTITIONS=%d", partitions))
			l := c.load(s, c.nodes[:2]...)
			n := c.nodes[2]
			before := c.mustOwn(n)
			if err := end(n); err != nil {
				t.Fatal(err)
			}
			n.ip = fmt.Sprintf("%s.%d", n.ip[:strings.LastIndex(n.ip, ".")], 100+rand.IntN(100))
			began := time.Now()
			c.mustStart(n)
			eventually(t, slow, "all know the new address", func() error {
				return errors.Join(c.balanced(3*partitions), c.knownAt(before.ID, n.admin()))
			})
			t.Logf("back at another address after %.1f s", time.Since(began).Seconds())
			// A quorum needs the moved node now.
			c.nodes[0].pause()
			eventually(t, slow, "the moved node votes at its new address", (&cluster{nodes: []*node{n}}).serves)
			c.nodes[0].resume()
			if after := c.mustOwn(n); after.ID != before.ID || after.Slot != before.Slot || after.Partitions != before.Partitions || after.Boot != before.Boot+1 {
				t.Errorf("before %+v, after %+v", before, after)
			}
			l.verify(t, c)
		})
	}
}

// knownAt reports which node does not hold the node with that id for alive at that address.
func (c *cluster) knownAt(id, admin string) error {
	for _, n := range c.live() {
		st, err := n.status()
		if err != nil {
			return err
		}
		for _, o := range st.Nodes {
			if o.ID == id && (o.AdminAddr != admin || !o.Alive) {
				return fmt.Errorf("node %s: %+v", n.name, o)
			}
		}
	}
	return nil
}

// TestSlotsAreDistinct: nodes that join at the same moment claim a slot each, in a register of the cluster.
// Two of one slot would make ballots and versions that are taken for each other's.
func TestSlotsAreDistinct(t *testing.T) {
	c := start(t, 3, "KAI_PARTITIONS=64")
	c.mustStart(c.add(), c.add(), c.add())
	eventually(t, slow, "every node has a slot of its own", func() error {
		for _, n := range c.nodes {
			st, err := n.status()
			if err != nil {
				return err
			}
			owner := map[int]string{}
			for _, o := range st.Nodes {
				if o.Slot < 0 {
					return fmt.Errorf("node %s: %s has no slot yet", n.name, o.ID)
				}
				if other, taken := owner[o.Slot]; taken {
					t.Fatalf("node %s: slot %d is of %s and of %s", n.name, o.Slot, other, o.ID)
				}
				owner[o.Slot] = o.ID
			}
			if len(owner) != len(c.nodes) {
				return fmt.Errorf("node %s knows %d nodes of %d", n.name, len(owner), len(c.nodes))
			}
		}
		return nil
	})
	for _, n := range c.nodes[3:] { // for good
		slot := c.mustOwn(n).Slot
		n.kill()
		c.mustStart(n)
		eventually(t, slow, "a slot outlives its process", func() error {
			own, err := n.own()
			if err == nil && own.Slot != slot {
				err = fmt.Errorf("node %s had slot %d, and has %d", n.name, slot, own.Slot)
			}
			return err
		})
	}
}

// TestFoundingRace: three nodes that start in any order, one of them killed and started again while they
// found a cluster, found exactly one.
func TestFoundingRace(t *testing.T) {
	s := seed(t)
	rng := rand.New(rand.NewPCG(s, 7))
	for round := range 5 {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			c := prepare(t, 3, "KAI_PARTITIONS=64")
			expect := 3 - round%2 // two of three suffice in every other round: any two may be the founders
			c.configure(expect)
			victim := c.nodes[rng.IntN(3)]
			for _, i := range rng.Perm(3) {
				if err := c.nodes[i].start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(rng.IntN(800)) * time.Millisecond)
			}
			if round >= 2 {
				time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
				victim.kill()
				time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
				if err := victim.start(); err != nil {
					t.Fatal(err)
				}
			}
			c.mustBeReady()
			ids, founded := map[string]bool{}, 0
			for _, n := range c.nodes {
				st, err := n.status()
				if err != nil {
					t.Fatal(err)
				}
				ids[st.Cluster.ID] = true
				founded += strings.Count(n.logged(), `"msg":"cluster founded"`)
			}
			if len(ids) != 1 || founded > 1 {
				t.Errorf("%d cluster ids, %d foundings: %v", len(ids), founded, ids)
			}
			c.mustServe()
		})
	}
}
