//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// join adds a node to a founded cluster and starts it; it finds the founders as they found each other.
func (c *cluster) join() *node {
	c.t.Helper()
	first := c.nodes[0]
	i := len(c.nodes)
	name := string(rune('a' + i))
	n := &node{
		name: name, ip: fmt.Sprintf("%s.%d", first.ip[:strings.LastIndex(first.ip, ".")], i+1),
		data: filepath.Join(c.dir, name), log: filepath.Join(c.dir, name+".log"), env: first.env,
	}
	c.nodes = append(c.nodes, n)
	if err := n.start(); err != nil {
		c.t.Fatal(err)
	}
	if err := n.awaitReady(slow); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// share is what a node says of another.
type share struct {
	ID         string `json:"id"`
	Alive      bool   `json:"alive"`
	AdminAddr  string `json:"admin_addr"`
	Partitions int    `json:"partitions"`
}

func (n *node) shares() (shares []share, moving int, err error) {
	res, err := http.Get("http://" + n.admin() + "/api/status")
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	var s struct {
		Nodes  []share `json:"nodes"`
		Moving int     `json:"moving"`
	}
	err = json.NewDecoder(res.Body).Decode(&s)
	return s.Nodes, s.Moving, err
}

// holding is how many partitions a node says it holds itself, and how many move.
func (n *node) holding() (held, moving int, err error) {
	shares, moving, err := n.shares()
	for _, s := range shares {
		if s.AdminAddr == n.admin() {
			held = s.Partitions
		}
	}
	return held, moving, err
}

// balanced reports why the partitions are not spread over exactly the nodes that run, or why not all
// nodes that run say so.
func (c *cluster) balanced(replicas int) error {
	var live []*node
	for _, n := range c.nodes {
		if _, ok := n.running(); ok {
			live = append(live, n)
		}
	}
	for _, n := range live {
		shares, moving, err := n.shares()
		if err != nil {
			return err
		}
		if moving > 0 {
			return fmt.Errorf("node %s: %d partitions move", n.name, moving)
		}
		alive := 0
		most, held := int(1.05*float64(replicas)/float64(len(live)))+1, 0
		for _, s := range shares {
			switch {
			case !s.Alive && s.Partitions > 0:
				return fmt.Errorf("node %s: the dead %s holds %d partitions", n.name, s.AdminAddr, s.Partitions)
			case s.Partitions > most:
				return fmt.Errorf("node %s: %s holds %d partitions of %d, at most %d wanted", n.name, s.AdminAddr, s.Partitions, replicas, most)
			}
			held += s.Partitions
			if s.Alive {
				alive++
			}
		}
		if alive != len(live) {
			return fmt.Errorf("node %s: %d nodes are alive, %d run", n.name, alive, len(live))
		}
		if held != replicas {
			return fmt.Errorf("node %s: %d replicas, %d wanted", n.name, held, replicas)
		}
	}
	return nil
}

// TestElastic grows a cluster from three nodes to four and then to six, kills one and waits for its
// replacement, and starts it again, while clients work; it checks their histories and what was
// acknowledged.
func TestElastic(t *testing.T) {
	const partitions = 256
	s := seed(t)
	c := start(t, 3, fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_REPLACE_AFTER=3s")
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.client())
	}
	h := newHistory()
	w := &workload{clients: 8, keys: 2, pause: 6 * time.Millisecond, turn: 2 * time.Second, h: h, seed: s, addrs: addrs[:2]}
	var l ledger
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	clients.Go(func() { w.run(ctx) })
	clients.Go(func() { l.insert(ctx, addrs[:2], 4, s) })
	step := func(what string, f func()) {
		t.Helper()
		began := time.Now()
		from := h.now()
		f()
		eventually(t, 2*slow, what, func() error { return c.balanced(3 * partitions) })
		h.fault(from, "%s", what)
		t.Logf("%s: balanced after %.1f s", what, time.Since(began).Seconds())
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
	}
	step("one node joins", func() { c.join() })
	step("two nodes join at once", func() { c.join(); c.join() })
	step("a node dies", func() { c.nodes[2].kill() })
	step("it comes back", func() {
		if err := c.nodes[2].start(); err != nil {
			t.Fatal(err)
		}
	})
	leave := func(n *node) {
		held, _, err := n.holding()
		if err != nil || held == 0 {
			t.Fatalf("node %s holds %d partitions before it leaves: %v", n.name, held, err)
		}
		if err := n.end(syscall.SIGTERM, slow); err != nil {
			t.Fatalf("node %s leaves: %v", n.name, err)
		}
		if !strings.Contains(n.logged(), `"msg":"drained"`) {
			t.Errorf("node %s has not handed over what it held", n.name)
		}
	}
	step("a node leaves", func() { leave(c.nodes[3]) })
	step("one leaves while another joins", func() {
		var leaves sync.WaitGroup
		leaves.Go(func() { leave(c.nodes[4]) })
		c.join()
		leaves.Wait()
	})
	cancel()
	clients.Wait()
	c.mustServe()
	answered, want := w.readAll(), len(h.byKey())*len(w.addrs)
	h.verify(t)
	if answered < want {
		t.Errorf("%d of %d reads were answered", answered, want)
	}
	l.verify(t, c)
}
