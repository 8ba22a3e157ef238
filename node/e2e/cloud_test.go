//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
// and go as the group, the spot market and accidents will, while clients work through a load balancer that asks who is ready. A node that is to go hands over first,
// and then says so to the group. Nothing acknowledged is lost, and clients hear nothing but what they may try again. KAI_E2E_SOAK=1 has the API be out for five minutes.
func TestAutoscaling(t *testing.T) { autoscaling(t, prepare(t, 5), "127.0.0.1") }

// TestAutoscalingContainers is TestAutoscaling with containers for instances.
func TestAutoscalingContainers(t *testing.T) {
	b := boxes(t)
	c := prepare(t, 5)
	b.into(c)
	autoscaling(t, c, b.host())
}

// autoscaling has a cloud at an address of this machine that the nodes reach.
func autoscaling(t *testing.T, c *cluster, host string) {
	const partitions = 64
	s := seed(t)
	cloud := cloudtest.NewAWSAt(host)
	defer cloud.Close()
	f := &fleet{
		cluster: c, cloud: cloud, partitions: partitions, zones: []string{"xx-test-1a", "xx-test-1b", "xx-test-1c"},
		env: []string{fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_CLUSTER=e2e", "KAI_BOOTSTRAP_EXPECT=5", "KAI_DISCOVERY=aws:asg=" + cloud.Group, "KAI_REPLACE_AFTER=3s"},
	}
	addrs := f.balance(26)
	began := time.Now()
	for _, n := range f.nodes {
		f.launch(cloud, n, f.zones, f.env)
	}
	f.mustBeReady()
	t.Logf("five nodes found each other by their group: ready after %.1f s", time.Since(began).Seconds())
	st, err := f.nodes[0].status()
	if err != nil {
		t.Fatal(err)
	}
	spread := map[string]int{}
	for _, o := range st.Nodes {
		spread[o.Zone]++
	}
	if len(st.Nodes) != 5 || spread[f.zones[0]] != 2 || spread[f.zones[1]] != 2 || spread[f.zones[2]] != 1 {
		t.Errorf("%d nodes in zones %v", len(st.Nodes), spread)
	}
	if len(addrs) == 0 {
		addrs = []string{f.nodes[0].client(), f.nodes[1].client()}
	}
	eventually(t, slow, "clients are served", func() error { // the load balancer has seen who is ready
		cl, err := dial(addrs[0])
		if err != nil {
			return err
		}
		defer cl.close()
		if r, _ := cl.do(command{verb: "get", key: "nobody"}); r.word != "END" {
			return fmt.Errorf("get: %s%s", r.word, r.why)
		}
		return nil
	})
	l := f.loadAt(s, addrs...)

	f.grow("from 5 to 8", 3)
	f.scaleIn("from 8 to 4", f.nodes[2:6]...)
	f.grow("from 4 to 6", 2)
	spot := f.live()[2:4]
	for _, n := range spot {
		cloud.Interrupt("i-"+n.name, time.Now().Add(2*time.Minute))
	}
	f.ends("two spot interruptions at once", false, spot...)

	killed := f.live()[3]
	killed.kill()
	cloud.Terminate("i-" + killed.name)
	died := time.Now()
	f.settle("one that was killed without notice is not missed")
	t.Logf("one killed without notice: the others hold everything after %.1f s", time.Since(died).Seconds())
	f.grow("its replacement", 1)

	// An API that is out harms nobody that is there; who is new waits for it.
	outage := 15 * time.Second
	if os.Getenv("KAI_E2E_SOAK") != "" {
		outage = 5 * time.Minute
	}
	cloud.Outage(true)
	late := f.add()
	f.launch(cloud, late, f.zones, f.env)
	time.Sleep(outage)
	if ready, _ := late.readyz(); ready {
		t.Error("a new node is ready that can know nobody")
	}
	f.settle("the others hold everything while the API is out")
	cloud.Outage(false)
	began = time.Now()
	f.arrived(late)
	t.Logf("an outage of %s: the late one has its share %.1f s after its end", outage, time.Since(began).Seconds())

	for i, old := range f.live() {
		what := fmt.Sprintf("instance refresh, %d", i+1)
		f.grow(what, 1)
		f.scaleIn(what, old)
	}
	l.verify(t, f.cluster)
	if faults := cloud.Faults(); len(faults) > 0 {
		t.Errorf("the cloud was asked wrongly: %q", faults)
	}
}

// fleet is a cluster whose nodes are instances of a group.
type fleet struct {
	*cluster
	cloud      *cloudtest.AWS
	partitions int
	zones, env []string
}

// settled: with three replicas in three zones shares depend on the zones; what counts is that those who are there hold everything.
func (f *fleet) settled() error {
	running := map[string]bool{}
	for _, n := range f.live() {
		running[n.admin()] = true
	}
	ready := 0
	for _, n := range f.live() {
		if ok, _ := n.readyz(); !ok {
			continue // it has not joined
		}
		ready++
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
		if st.Moving > 0 || held != 3*f.partitions {
			return fmt.Errorf("node %s: %d partitions move, %d replicas are held", n.name, st.Moving, held)
		}
	}
	if ready < 3 {
		return fmt.Errorf("%d nodes are ready", ready)
	}
	return nil
}

func (f *fleet) settle(what string) {
	f.t.Helper()
	eventually(f.t, 2*slow, what, f.settled)
}

// grow has the group launch instances at the same moment, and waits until they have their share.
func (f *fleet) grow(what string, by int) {
	f.t.Helper()
	began := time.Now()
	var fresh []*node
	for range by {
		n := f.add()
		f.launch(f.cloud, n, f.zones, f.env)
		fresh = append(fresh, n)
	}
	f.arrived(fresh...)
	f.t.Logf("%s: launched, ready and balanced after %.1f s", what, time.Since(began).Seconds())
}

func (f *fleet) arrived(nodes ...*node) {
	f.t.Helper()
	for _, n := range nodes {
		if err := n.awaitReady(slow); err != nil {
			f.t.Fatal(err)
		}
	}
	for _, n := range nodes {
		eventually(f.t, 2*slow, "node "+n.name+" has its share", func() error {
			own, err := n.own()
			if err == nil && own.Partitions == 0 {
				ring, err := f.kai("ring", "--admin", f.live()[0].admin())
				plan, err2 := f.kai("ring", "plan", "--admin", f.live()[0].admin())
				return fmt.Errorf("it holds nothing (%v)\n%s\n%s", errors.Join(err, err2), ring, plan)
			}
			return err
		})
	}
	f.settle("the shares are as they should be")
}

// scaleIn has the group end instances, all at once.
func (f *fleet) scaleIn(what string, nodes ...*node) {
	f.t.Helper()
	for _, n := range nodes {
		f.cloud.ScaleIn("i-" + n.name)
	}
	f.ends(what, true, nodes...)
}

// ends waits until nodes have handed over and ended by themselves; hooked, the group has heard of it.
func (f *fleet) ends(what string, hooked bool, nodes ...*node) {
	f.t.Helper()
	notice := time.Now()
	for _, n := range nodes {
		eventually(f.t, 2*slow, "node "+n.name+" ends", func() error {
			if _, ok := n.running(); ok {
				return errors.New("it runs")
			}
			return nil
		})
		if err := n.end(0, time.Second); err != nil {
			f.t.Errorf("node %s: %v", n.name, err)
		}
		if !strings.Contains(n.logged(), `"msg":"drained"`) {
			f.t.Errorf("node %s has not handed over", n.name)
		}
		f.t.Logf("%s: node %s gone %.1f s after the notice", what, n.name, time.Since(notice).Seconds())
	}
	for _, n := range nodes {
		if beats, completed := f.cloud.Lifecycle("i-" + n.name); hooked && (beats == 0 || completed.IsZero()) {
			f.t.Errorf("node %s: %d heartbeats, completed at %s", n.name, beats, completed)
		}
		f.cloud.Terminate("i-" + n.name)
	}
	f.settle("the others hold everything")
}

// balance starts haproxy before as many nodes as the fleet may have in its life, and returns its address; nothing if it is not installed. It asks each
// node twice a second whether it is ready, as a cloud's load balancer does more slowly.
func (f *fleet) balance(most int) []string {
	f.t.Helper()
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		f.t.Log("haproxy is not installed: clients connect to nodes that stay, without a load balancer")
		return nil
	}
	first := f.nodes[0]
	net := first.ip[:strings.LastIndex(first.ip, ".")]
	addr := net + ".200:11211"
	if first.box != nil {
		addr = first.box.host() + ":11211"
	}
	config := fmt.Sprintf(`defaults
  mode tcp
  timeout connect 1s
  timeout client 1m
  timeout server 1m
  retries 2
  option redispatch
listen kai
  bind %s
  balance roundrobin
  option httpchk GET /readyz
  http-check expect status 200
  default-server check port %s inter 500ms fastinter 200ms fall 2 rise 2
`, addr, first.admin()[strings.LastIndex(first.admin(), ":")+1:])
	for i := range most {
		config += fmt.Sprintf("  server n%d %s.%d:11211\n", i+1, net, i+1)
	}
	file := filepath.Join(f.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command(haproxy, "-db", "-q", "-f", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return []string{addr}
}
