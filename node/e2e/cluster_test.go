//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// slow bounds waits for things that take a moment on an idle machine and much longer on a busy one.
const slow = 60 * time.Second

// cluster is a set of nodes that found one cluster together.
type cluster struct {
	t     *testing.T
	dir   string
	nodes []*node
	loads *atomic.Int64 // how many there were
}

// prepare makes a cluster of n nodes that are not started yet. env are further KAI_ settings of all.
// Whatever runs at the end of the test is killed then, and the logs are shown if the test failed.
func prepare(t *testing.T, n int, env ...string) *cluster {
	t.Helper()
	wanted(t)
	dir, err := os.MkdirTemp("", "kai-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir, loads: new(atomic.Int64)}
	net := fmt.Sprintf("127.%d.%d", 1+rand.IntN(254), rand.IntN(256))
	for i := range n {
		name := string(rune('a' + i))
		c.nodes = append(c.nodes, &node{
			name: name, ip: fmt.Sprintf("%s.%d", net, i+1),
			data: filepath.Join(dir, name), log: filepath.Join(dir, name+".log"), env: env,
		})
	}
	t.Cleanup(c.cleanup)
	return c
}

// configure tells the nodes of a prepared cluster of each other, and how many of them found it.
func (c *cluster) configure(expect int) {
	var seeds []string
	for _, n := range c.nodes {
		seeds = append(seeds, n.gossip())
	}
	for _, n := range c.nodes {
		n.env = append([]string{"KAI_CLUSTER=e2e", fmt.Sprintf("KAI_BOOTSTRAP_EXPECT=%d", expect)}, n.env...)
		if len(c.nodes) > 1 {
			n.env = append(n.env, "KAI_DISCOVERY=static:"+strings.Join(seeds, ","))
		}
	}
}

// found starts all nodes of a prepared cluster and waits until they are ready.
func (c *cluster) found() *cluster {
	c.t.Helper()
	c.configure(len(c.nodes))
	for _, n := range c.nodes {
		if err := n.start(); err != nil {
			c.t.Fatal(err)
		}
	}
	c.mustBeReady()
	return c
}

// start is prepare and found.
func start(t *testing.T, n int, env ...string) *cluster {
	t.Helper()
	return prepare(t, n, env...).found()
}

// in is the same cluster on behalf of a subtest.
func (c *cluster) in(t *testing.T) *cluster {
	d := *c
	d.t = t
	return &d
}

// mustBeReady waits until all nodes are ready.
func (c *cluster) mustBeReady() {
	c.t.Helper()
	for _, n := range c.nodes {
		if err := n.awaitReady(slow); err != nil {
			c.t.Fatal(err)
		}
	}
}

// revive starts the nodes that do not run, and continues those that are stopped.
func (c *cluster) revive() error {
	var errs []error
	for _, n := range c.nodes {
		n.resume()
		if _, ok := n.running(); !ok {
			n.kill() // forgets a process that ended by itself
			errs = append(errs, n.start())
		}
	}
	return errors.Join(errs...)
}

// serves reports why the cluster does not serve through every node: a set and a get must succeed, on
// a key of each of many partitions.
func (c *cluster) serves() error {
	for _, n := range c.nodes {
		if _, ok := n.running(); !ok {
			continue
		}
		cl, err := dial(n.client())
		if err != nil {
			return err
		}
		defer cl.close()
		for i := range 64 {
			key := fmt.Sprintf("serves-%d", i)
			if r, _ := cl.do(command{verb: "set", key: key, value: n.name}); r.word != "STORED" {
				return fmt.Errorf("set through node %s: %s%s", n.name, r.word, r.why)
			}
			if r, _ := cl.do(command{verb: "get", key: key}); r.value != n.name {
				return fmt.Errorf("get through node %s: %s%s %q", n.name, r.word, r.why, r.value)
			}
		}
	}
	return nil
}

// mustServe waits until the cluster serves through every node that runs.
func (c *cluster) mustServe() {
	c.t.Helper()
	eventually(c.t, slow, "the cluster serves through every node that runs", c.serves)
}

// again starts what does not run, and waits until the cluster serves through every node.
func (c *cluster) again() {
	c.t.Helper()
	if err := c.revive(); err != nil {
		c.t.Fatal(err)
	}
	c.mustBeReady()
	eventually(c.t, slow, "the cluster serves through every node again", c.serves)
}

// client connects to node i; the test ends when that fails.
func (c *cluster) client(i int) *client {
	c.t.Helper()
	cl, err := dial(c.nodes[i].client())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.close)
	return cl
}

// eventually polls ok until it returns no error; the test ends with the last one after limit.
func eventually(t *testing.T, limit time.Duration, what string, ok func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
	}
}

func (c *cluster) cleanup() {
	for _, n := range c.nodes {
		n.signal(syscall.SIGKILL)
	}
	for _, n := range c.nodes {
		n.kill()
		if c.t.Failed() {
			c.t.Logf("---- log of node %s\n%s", n.name, n.tail(25))
		}
		for _, panicked := range []string{"\npanic: ", "\nfatal error: ", "DATA RACE"} {
			if log := n.logged(); strings.Contains(log, panicked) {
				at := strings.Index(log, panicked)
				c.t.Errorf("node %s crashed:\n%s", n.name, log[at:min(len(log), at+3000)])
			}
		}
	}
	if os.Getenv("KAI_E2E_KEEP") != "" {
		c.t.Log("kept:", c.dir)
		return
	}
	os.RemoveAll(c.dir)
}
