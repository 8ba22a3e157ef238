//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// metrics reads the node's metrics of a prefix without labels, in whole numbers.
func (n *node) metrics(prefix string) (map[string]int64, error) {
	res, err := http.Get("http://" + n.admin() + "/metrics")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	all := map[string]int64{}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(rest, 64); err == nil && strings.HasPrefix(name, prefix) {
			all[name] = int64(v)
		}
	}
	return all, lines.Err()
}

// labelled reads a metric with labels, by these.
func (n *node) labelled(metric string) (map[string]float64, error) {
	res, err := http.Get("http://" + n.admin() + "/metrics")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	all := map[string]float64{}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), "} ")
		if labels, ok := strings.CutPrefix(name, metric+"{"); ok {
			if all[labels], err = strconv.ParseFloat(rest, 64); err != nil {
				return nil, err
			}
		}
	}
	return all, lines.Err()
}

// metric reads one of them.
func (n *node) metric(name string) (int64, error) {
	all, err := n.metrics(name)
	value, ok := all[name]
	if err == nil && !ok {
		err = fmt.Errorf("node %s has no metric %s", n.name, name)
	}
	return value, err
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
		taken, err := down.metric("kai_repair_taken_total")
		helped, err2 := down.metric("kai_repair_reconciled_total")
		if err != nil || err2 != nil || taken+helped < 40 {
			return fmt.Errorf("%d taken over, %d with others' help: %v %v", taken, helped, err, err2)
		}
		return nil
	})
	since := c.passes()
	eventually(t, 2*slow, "nothing differs", func() error { return c.alike(since) })
	c.overwritten(func(i int) string { return fmt.Sprintf("key-%d", i) })
}
