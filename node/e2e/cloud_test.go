//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"kai/discovery/cloudtest"
)

// launch starts a node as an instance of a cloud's group.
func (c *cluster) launch(cloud *cloudtest.AWS, n *node, zones, env []string) {
	c.t.Helper()
	i := slices.Index(c.nodes, n)
	n.env = append(slices.Clone(env), cloud.Launch("i-"+n.name, n.ip, zones[i%len(zones)])...)
	if err := n.start(); err != nil {
		c.t.Fatal(err)
	}
}

// TestFoundedByGroup: five instances that a group starts at the same moment found one cluster, with a bucket and without. KAI_E2E_SOAK=1 has
// them do so twenty times each.
func TestFoundedByGroup(t *testing.T) {
	rounds := 2
	if os.Getenv("KAI_E2E_SOAK") != "" {
		rounds = 20
	}
	for _, bucket := range []bool{false, true} {
		for round := range rounds {
			t.Run(fmt.Sprint("bucket ", bucket, " round ", round), func(t *testing.T) {
				cloud := cloudtest.NewAWS()
				defer cloud.Close()
				env := []string{"KAI_PARTITIONS=64", "KAI_CLUSTER=e2e", "KAI_BOOTSTRAP_EXPECT=5", "KAI_DISCOVERY=aws:asg=" + cloud.Group}
				if bucket {
					env = append(env, "KAI_BACKUP_URL=file://"+t.TempDir())
				}
				c := prepare(t, 5)
				began := time.Now()
				for _, n := range c.nodes {
					c.launch(cloud, n, []string{"a", "b", "c"}, env)
				}
				c.mustBeReady()
				t.Logf("ready after %.1f s", time.Since(began).Seconds())
				ids := map[string]bool{}
				for _, n := range c.nodes {
					st, err := n.status()
					if err != nil {
						t.Fatal(err)
					}
					ids[st.Cluster.ID] = true
				}
				if len(ids) != 1 {
					t.Errorf("%d clusters: %v", len(ids), ids)
				}
			})
		}
	}
}

// TestAutoscaling: nodes that know nothing but the name of their autoscaling group found a cluster, learn their zones, and come
// and go as the group, the spot market and accidents will, while clients work. A node that is to go hands over first, and then says so to the group.
func TestAutoscaling(t *testing.T) {
	const partitions = 64
	s := seed(t)
	cloud := cloudtest.NewAWS()
	defer cloud.Close()
	zones := []string{"xx-test-1a", "xx-test-1b", "xx-test-1c"}
	env := []string{fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_CLUSTER=e2e", "KAI_BOOTSTRAP_EXPECT=5", "KAI_DISCOVERY=aws:asg=" + cloud.Group, "KAI_REPLACE_AFTER=3s"}
	c := prepare(t, 5)
	launch := func(n *node) { c.launch(cloud, n, zones, env) }
	began := time.Now()
	for _, n := range c.nodes {
		launch(n)
	}
	c.mustBeReady()
	t.Logf("five nodes found each other by their group: ready after %.1f s", time.Since(began).Seconds())
	st, err := c.nodes[0].status()
	if err != nil {
		t.Fatal(err)
	}
	spread := map[string]int{}
	for _, o := range st.Nodes {
		spread[o.Zone]++
	}
	if len(st.Nodes) != 5 || spread[zones[0]] != 2 || spread[zones[1]] != 2 || spread[zones[2]] != 1 {
		t.Errorf("%d nodes in zones %v", len(st.Nodes), spread)
	}
	l := c.load(s, c.nodes[:2]...)
	// With three replicas in three zones shares depend on the zones: what counts is that those who are there hold everything.
	settled := func() error {
		running := map[string]bool{}
		for _, n := range c.live() {
			running[n.admin()] = true
		}
		for _, n := range c.live() {
			st, err := n.status()
			if err != nil {
				return err
			}
			held := 0
			for _, o := range st.Nodes {
				if o.Partitions > 0 && !running[o.AdminAddr] {
					return fmt.Errorf("node %s: %+v", n.name, o)
				}
				held += o.Partitions
			}
			if st.Moving > 0 || held != 3*partitions {
				return fmt.Errorf("node %s: %d partitions move, %d replicas are held", n.name, st.Moving, held)
			}
		}
		return nil
	}

	// ends waits until nodes have handed over and ended by themselves.
	ends := func(what string, nodes ...*node) {
		t.Helper()
		notice := time.Now()
		for _, n := range nodes {
			eventually(t, 2*slow, "node "+n.name+" ends", func() error {
				if _, ok := n.running(); ok {
					return errors.New("it runs")
				}
				return nil
			})
			if err := n.end(0, time.Second); err != nil {
				t.Errorf("node %s: %v", n.name, err)
			}
			if !strings.Contains(n.logged(), `"msg":"drained"`) {
				t.Errorf("node %s has not handed over", n.name)
			}
		}
		t.Logf("%s: gone %.1f s after the notice", what, time.Since(notice).Seconds())
		for _, n := range nodes {
			if beats, completed := cloud.Lifecycle("i-" + n.name); strings.Contains(what, "scale-in") && (beats == 0 || completed.IsZero()) {
				t.Errorf("node %s: %d heartbeats, completed at %s", n.name, beats, completed)
			}
			cloud.Terminate("i-" + n.name)
		}
		eventually(t, slow, "the others hold everything", settled)
	}
	newcomer := c.add()
	launch(newcomer)
	if err := newcomer.awaitReady(slow); err != nil {
		t.Fatal(err)
	}
	has := func(n *node) func() error {
		return func() error {
			own, err := n.own()
			if err == nil && own.Partitions == 0 {
				err = errors.New("it holds nothing")
			}
			return errors.Join(err, settled())
		}
	}
	eventually(t, slow, "the sixth has its share", has(newcomer))

	cloud.ScaleIn("i-" + c.nodes[4].name)
	ends("scale-in", c.nodes[4])
	for _, n := range c.nodes[2:4] {
		cloud.Interrupt("i-"+n.name, time.Now().Add(2*time.Minute))
	}
	ends("two spot interruptions at once", c.nodes[2:4]...)

	// An API that is out harms nobody that is there; who is new waits for it.
	cloud.Outage(true)
	late := c.add()
	launch(late)
	time.Sleep(5 * time.Second)
	if ready, _ := late.readyz(); ready {
		t.Error("a new node is ready that can know nobody")
	}
	cloud.Outage(false)
	if err := late.awaitReady(slow); err != nil {
		t.Fatal(err)
	}
	eventually(t, slow, "the late one has its share", has(late))
	newcomer.kill()
	cloud.Terminate("i-" + newcomer.name)
	died := time.Now()
	eventually(t, slow, "one that was killed without notice is not missed", settled)
	t.Logf("one killed without notice: replaced after %.1f s", time.Since(died).Seconds())
	l.verify(t, c)
	if faults := cloud.Faults(); len(faults) > 0 {
		t.Errorf("the cloud was asked wrongly: %q", faults)
	}
}
