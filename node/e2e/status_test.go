//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// status is what a node says of itself and its cluster.
type status struct {
	NodeID  string `json:"node_id"`
	Cluster struct {
		ID         string `json:"id"`
		Generation uint32 `json:"generation"`
	} `json:"cluster"`
	Nodes  []share `json:"nodes"`
	Moving int     `json:"moving"`
}

// share is what a node says of another.
type share struct {
	ID         string `json:"id"`
	Slot       int    `json:"slot"`
	Alive      bool   `json:"alive"`
	AdminAddr  string `json:"admin_addr"`
	Zone       string `json:"zone"`
	Boot       uint64 `json:"boot"`
	Partitions int    `json:"partitions"`
}

// status asks the node, which may hang or be gone.
func (n *node) status() (s status, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.admin()+"/api/status", nil)
	if err != nil {
		return s, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	return s, json.NewDecoder(res.Body).Decode(&s)
}

// own is what a node says of itself.
func (n *node) own() (share, error) {
	s, err := n.status()
	for _, o := range s.Nodes {
		if o.ID == s.NodeID {
			return o, err
		}
	}
	return share{}, fmt.Errorf("node %s is not among its nodes: %w", n.name, err)
}

// mustOwn is what a node tells of itself, once it has its slot: a cluster serves before all have theirs.
func (c *cluster) mustOwn(n *node) (own share) {
	c.t.Helper()
	eventually(c.t, slow, "node "+n.name+" has a slot", func() (err error) {
		if own, err = n.own(); err == nil && own.Slot < 0 {
			err = errors.New("it has none yet")
		}
		return err
	})
	return own
}

// live are the nodes that run.
func (c *cluster) live() (live []*node) {
	for _, n := range c.nodes {
		if _, ok := n.running(); ok {
			live = append(live, n)
		}
	}
	return live
}

// balanced reports why the partitions are not spread over exactly the nodes that run, or why not all
// nodes that run say so.
func (c *cluster) balanced(replicas int) error {
	live := c.live()
	for _, n := range live {
		s, err := n.status()
		if err != nil {
			return err
		}
		if s.Moving > 0 {
			return fmt.Errorf("node %s: %d partitions move", n.name, s.Moving)
		}
		alive := 0
		most, held := int(1.05*float64(replicas)/float64(len(live)))+1, 0
		for _, o := range s.Nodes {
			switch {
			case o.Alive && o.Slot < 0:
				return fmt.Errorf("node %s does not know the slot of %s yet", n.name, o.AdminAddr)
			case !o.Alive && o.Partitions > 0:
				return fmt.Errorf("node %s: the dead %s holds %d partitions", n.name, o.AdminAddr, o.Partitions)
			case o.Partitions > most:
				return fmt.Errorf("node %s: %s holds %d partitions of %d, at most %d wanted", n.name, o.AdminAddr, o.Partitions, replicas, most)
			}
			held += o.Partitions
			if o.Alive {
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

// alike reports why replicas still differ: each node that runs must have made at least as many passes as
// since says, by node, and found no difference in the last.
func (c *cluster) alike(since map[*node]int64) error {
	for _, n := range c.live() {
		passes, err := n.metric("kai_repair_passes_total")
		diverged, err2 := n.metric("kai_diverged_leaves")
		missed, err3 := n.metric("kai_repair_missed")
		if err := errors.Join(err, err2, err3); err != nil || passes < since[n] || diverged != 0 || missed != 0 {
			return fmt.Errorf("node %s: %d leaves differ and %d comparisons were not made in pass %d, wanted is pass %d: %v", n.name, diverged, missed, passes, since[n], err)
		}
	}
	return nil
}

// passes tells, by node, the number of the first pass that ends after now.
func (c *cluster) passes() map[*node]int64 {
	c.t.Helper()
	since := map[*node]int64{}
	for _, n := range c.live() {
		passes, err := n.metric("kai_repair_passes_total")
		if err != nil {
			c.t.Fatal(err)
		}
		since[n] = passes + 1 // one may be under way
	}
	return since
}
