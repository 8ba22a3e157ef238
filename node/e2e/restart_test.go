//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fill stores keys 0 … count-1 of a set test through node i and returns them; each must be stored.
func (c *cluster) fill(i int, prefix string, count int) []string {
	c.t.Helper()
	cl := c.client(i)
	var keys []string
	for k := range count {
		key := fmt.Sprintf("%s-%d", prefix, k)
		if r, _ := cl.do(command{verb: "set", key: key, value: valueOf(key)}); r.word != "STORED" {
			c.t.Fatalf("set %s through node %s: %s%s", key, c.nodes[i].name, r.word, r.why)
		}
		keys = append(keys, key)
	}
	return keys
}

// holds fails the test unless all keys of a set test are there through every node.
func (c *cluster) holds(keys []string) {
	c.t.Helper()
	l := ledger{}
	l.fates[definite] = keys
	l.verify(c.t, c)
}

func TestRestart(t *testing.T) {
	c := start(t, 3)
	keys := c.fill(0, "first", 300)
	t.Run("status", func(t *testing.T) { statusParses(c.in(t)) })
	t.Run("clean stop of all", func(t *testing.T) {
		c := c.in(t)
		for _, n := range c.nodes {
			if err := n.stop(); err != nil {
				t.Errorf("node %s: %v", n.name, err)
			}
		}
		c.again()
		c.holds(keys)
	})
	t.Run("kill -9 of all", func(t *testing.T) {
		c := c.in(t)
		keys = append(keys, c.fill(1, "second", 300)...)
		for _, n := range c.nodes {
			n.kill()
		}
		c.again()
		c.holds(keys)
	})
	t.Run("settings mismatch", func(t *testing.T) { mismatch(c.in(t)) })
}

func statusParses(c *cluster) {
	for _, n := range c.nodes {
		out, err := exec.Command(os.Getenv("KAI_E2E_BIN"), "status", "-o", "json", "--admin", n.admin()).Output()
		if err != nil {
			c.t.Fatalf("kai status: %v\n%s", err, out)
		}
		var s struct {
			Ready bool              `json:"ready"`
			Nodes []json.RawMessage `json:"nodes"`
		}
		if err := json.Unmarshal(out, &s); err != nil || !s.Ready || len(s.Nodes) != 3 {
			c.t.Errorf("kai status of node %s: %v: ready %v, %d nodes\n%s", n.name, err, s.Ready, len(s.Nodes), out)
		}
	}
}

// mismatch starts a node of the cluster, and one that is not yet, with other settings than the
// cluster's: both must refuse, and name both values.
func mismatch(c *cluster) {
	old := c.nodes[2]
	fresh := &node{
		name: "fresh", ip: strings.TrimSuffix(old.ip, "3") + "4", env: old.env,
		data: filepath.Join(c.dir, "fresh"), log: filepath.Join(c.dir, "fresh.log"),
	}
	defer fresh.kill()
	old.kill()
	for _, n := range []*node{old, fresh} {
		for _, s := range []struct{ setting, ours, theirs string }{
			{"KAI_PARTITIONS", "512", "1024"},
			{"KAI_QUORUM", "5:3:3", "3:2:2"},
		} {
			before := len(n.logged())
			if err := n.start(s.setting + "=" + s.ours); err != nil {
				c.t.Fatal(err)
			}
			eventually(c.t, 30*time.Second, fmt.Sprintf("node %s with %s=%s says both values", n.name, s.setting, s.ours), func() error {
				if ready, _ := n.readyz(); ready {
					c.t.Fatalf("node %s is ready with %s=%s in a cluster of %s", n.name, s.setting, s.ours, s.theirs)
				}
				_, runs := n.running()
				said := n.logged()[before:]
				_, said, _ = strings.Cut(said, "\n") // the line of the harness
				if strings.Contains(said, s.ours) && strings.Contains(said, s.theirs) {
					return nil
				}
				if !runs {
					c.t.Fatalf("node %s has ended; the end of its log:\n%s", n.name, n.tail(15))
				}
				return fmt.Errorf("the end of its log:\n%s", n.tail(15))
			})
			n.kill()
		}
	}
	c.again()
}
