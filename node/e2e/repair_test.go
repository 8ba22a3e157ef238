//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// metric reads one value of the node's metrics.
func (n *node) metric(name string) (value int64, err error) {
	res, err := http.Get("http://" + n.admin() + "/metrics")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			_, err := fmt.Sscan(rest, &value)
			return value, err
		}
	}
	return 0, fmt.Errorf("node %s has no metric %s", n.name, name)
}

// TestMissedWritesAreRepaired is a failure of the ancestor: 20 keys deleted and 20 written over while
// a node was down were readable in their old state when it was back. Here the node takes over what it missed
// by itself, and nothing differs any more.
func TestMissedWritesAreRepaired(t *testing.T) {
	c := start(t, 3, "KAI_PARTITIONS=64")
	cl := c.client(0)
	for i := range 40 {
		must(t, cl, "STORED", command{verb: "set", key: fmt.Sprintf("key-%d", i), value: "old"})
	}
	down := c.nodes[2]
	down.kill()
	for i := range 20 {
		must(t, cl, "DELETED", command{verb: "delete", key: fmt.Sprintf("key-%d", i)})
		must(t, cl, "STORED", command{verb: "set", key: fmt.Sprintf("key-%d", 20+i), value: "new"})
	}
	if err := down.start(); err != nil {
		t.Fatal(err)
	}
	if err := down.awaitReady(slow); err != nil {
		t.Fatal(err)
	}
	// Not read before the repair, which would mend by itself.
	eventually(t, slow, "the node that was down has taken over what it missed", func() error {
		taken, err := down.metric("kai_repair_taken")
		helped, err2 := down.metric("kai_repair_reconciled")
		if err != nil || err2 != nil || taken+helped < 40 {
			return fmt.Errorf("%d taken over, %d with others' help: %v %v", taken, helped, err, err2)
		}
		return nil
	})
	since := c.passes()
	eventually(t, 2*slow, "nothing differs", func() error { return c.alike(since) })
	c.overwritten(func(i int) string { return fmt.Sprintf("key-%d", i) })
}
