//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"kai/node/console"
)

// TestOperator drains a node and takes that back, drains it again and stops it; then it kills two of three for good,
// recovers what is left, and lets the dead come back.
func TestOperator(t *testing.T) {
	const partitions = 64
	c := start(t, 3, fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_REPLACE_AFTER=3s")
	d := c.join()
	eventually(t, slow, "four nodes share", func() error { return c.balanced(3 * partitions) })
	admin := console.Client{Addr: d.admin()}
	drained := func() error {
		got, err := admin.Drain(t.Context())
		if err == nil && (!got.Asked || got.Partitions > 0) {
			err = fmt.Errorf("%+v", got)
		}
		return err
	}
	drain := func(on bool) {
		t.Helper()
		if _, err := admin.SetDrain(t.Context(), "", on); err != nil {
			t.Fatal(err)
		}
	}
	drain(true)
	eventually(t, slow, "the node is drained", drained)
	if ok, why := d.readyz(); !ok {
		t.Errorf("a drained node does not serve: %s", why)
	}
	if _, err := (console.Client{Addr: c.nodes[0].admin()}).SetDrain(t.Context(), "", true); !errors.Is(err, console.ErrRefused) || !strings.Contains(err.Error(), "2 other nodes for 3 replicas") {
		t.Errorf("another drain with too few nodes: %v", err)
	}
	keys := c.fill(3, "first", 200)
	drain(false)
	eventually(t, slow, "the node has its share again", func() error { return c.balanced(3 * partitions) })
	drain(true)
	eventually(t, slow, "the node is drained again", drained)
	began := time.Now()
	if err := d.end(syscall.SIGTERM, slow); err != nil {
		t.Fatal(err)
	}
	t.Logf("a drained node stops within %.1f s", time.Since(began).Seconds())
	if strings.Contains(d.logged(), "drain is not complete") {
		t.Error("it had something to hand over")
	}
	c.nodes = c.nodes[:3]

	keys = append(keys, c.fill(0, "second", 200)...)
	time.Sleep(time.Second) // all three have them
	asked := console.Client{Addr: c.nodes[0].admin()}
	if _, err := asked.Recover(t.Context(), "nonsense"); !errors.Is(err, console.ErrRefused) {
		t.Errorf("recovered without the name: %v", err)
	}
	status, err := asked.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := status.Cluster.Name
	if r, err := asked.Recover(t.Context(), name); err != nil || len(r.Partitions) != 0 {
		t.Errorf("recovered though all is well: %+v, %v", r, err)
	}
	c.nodes[1].kill()
	c.nodes[2].kill()
	if r, err := asked.Recover(t.Context(), name); err != nil || len(r.Partitions) != 0 {
		t.Errorf("recovered at once: %+v, %v", r, err)
	}
	eventually(t, slow, "all is lost", func() error {
		r, err := asked.Lost(t.Context())
		if err == nil && len(r.Partitions) != partitions {
			err = fmt.Errorf("%d partitions", len(r.Partitions))
		}
		return err
	})
	if ok, _ := c.nodes[0].readyz(); ok {
		t.Error("it serves without a quorum")
	}
	r, err := asked.Recover(t.Context(), name)
	if err != nil || len(r.Partitions) != partitions {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, p := range r.Partitions {
		if !p.Recovered || p.Generation != 1 {
			t.Fatalf("%+v", p)
		}
	}
	if err := c.nodes[0].awaitReady(slow); err != nil {
		t.Fatal(err)
	}
	c.readThrough(t, 0, keys)
	keys = append(keys, c.fill(0, "third", 200)...)
	for _, i := range []int{1, 2} {
		if err := c.nodes[i].start(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 2*slow, "three replicas again", func() error { return c.balanced(3 * partitions) })
	c.readThrough(t, 1, keys)
	c.mustServe()
	for _, n := range c.nodes {
		s, err := (console.Client{Addr: n.admin()}).Status(t.Context())
		if err != nil || s.Recoveries.Partitions != partitions || s.Recoveries.Generation != 1 || s.Lost != 0 {
			t.Errorf("node %s: %+v, %d lost, %v", n.name, s.Recoveries, s.Lost, err)
		}
	}
}

// readThrough reads all keys back through node i.
func (c *cluster) readThrough(t *testing.T, i int, keys []string) {
	t.Helper()
	got, err := c.nodes[i].readBack(keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if got[key] != valueOf(key) {
			t.Errorf("%s is %q at node %s", key, got[key], c.nodes[i].name)
		}
	}
}
