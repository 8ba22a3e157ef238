//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// destroy kills all nodes and their disks.
func (c *cluster) destroy() {
	c.t.Helper()
	for _, n := range c.nodes {
		n.kill()
		if err := os.RemoveAll(n.data); err != nil {
			c.t.Fatal(err)
		}
	}
}

// TestScaleToZero ends a cluster while clients write, and begins the next with another number of nodes and partitions: one history, through both. Then
// all is lost, and begins once more with the newest snapshot.
func TestScaleToZero(t *testing.T) {
	s, count := seed(t), records(t)
	dir := t.TempDir()
	url := "file://" + dir
	env := func(partitions int) []string {
		return []string{fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_BACKUP_URL=" + url, "KAI_BACKUP_INTERVAL=0", "KAI_PURGE_AFTER=1s"}
	}
	t.Setenv("KAI_CLUSTER", "e2e") // for the command line
	old := start(t, 3, env(64)...)
	old.loadRecords(count)
	l := old.load(s, old.nodes...)
	time.Sleep(2 * time.Second)
	if out, err := old.kai("backup", "seal", "--url", url, "--admin", old.nodes[0].admin()); err == nil || !strings.Contains(out, "--confirm e2e") {
		t.Fatalf("%v: %s", err, out)
	}
	// One that is interrupted is taken back.
	cmd := exec.Command(os.Getenv("KAI_E2E_BIN"), "backup", "seal", "--url", url, "--admin", old.nodes[1].admin(), "--confirm", "e2e")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, slow, "a node is sealed", func() error {
		if _, text := old.nodes[0].readyz(); !strings.Contains(text, "sealed") {
			return errors.New(text)
		}
		return nil
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	old.nodes[0].kill() // that it is sealed outlasts the process
	if err := old.nodes[0].start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, slow, "all take writes again", func() error { // the restarted one may not be seen yet
		out, err := old.kai("backup", "seal", "--undo", "--url", url, "--admin", old.nodes[1].admin())
		for _, n := range old.nodes {
			if ready, text := n.readyz(); !ready {
				return fmt.Errorf("node %s: %s; %v %s", n.name, text, err, out)
			}
		}
		return err
	})
	old.mustServe()
	began := time.Now()
	old.mustKai("backup", "seal", "--url", url, "--admin", old.nodes[0].admin(), "--confirm", "e2e")
	t.Logf("sealed in %.1f s", time.Since(began).Seconds())
	l.stop()
	for _, n := range old.nodes {
		if ready, text := n.readyz(); ready || !strings.Contains(text, "has ended") {
			t.Errorf("node %s after the seal: %v %s", n.name, ready, text)
		}
	}
	// One that is started again with its disk serves no more.
	old.nodes[1].kill()
	if err := old.nodes[1].start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, slow, "a node of the old generation says so", func() error {
		if ready, text := old.nodes[1].readyz(); ready || !strings.Contains(text, "has ended") {
			return errors.New(text)
		}
		return nil
	})
	old.destroy()

	began = time.Now()
	fresh := start(t, 5, env(256)...)
	t.Logf("five nodes serve after %.1f s", time.Since(began).Seconds())
	generation := func(c *cluster, want uint32) {
		t.Helper()
		for _, n := range c.nodes {
			if st, err := n.status(); err != nil || st.Cluster.Generation != want || st.Cluster.ID == "" {
				t.Errorf("node %s: %+v, %v", n.name, st.Cluster, err)
			}
		}
	}
	generation(fresh, 2)
	fresh.checkRecords(count)
	l.verify(t, fresh)
	kept := fresh.fill(0, "kept", 200)
	gone := fresh.fill(0, "gone", 50)
	cl := fresh.client(0)
	for _, k := range gone {
		must(t, cl, "DELETED", command{verb: "delete", key: k})
	}
	fresh.mustKai("backup", "create", "--url", url, "--name", "last", "--admin", fresh.nodes[0].admin())
	fresh.destroy()

	// Nodes that find nobody found nothing as long as nobody says that the others are lost.
	third := prepare(t, 2, env(16)...)
	third.configure(2)
	for _, n := range third.nodes {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, slow, "nodes say what they wait for", func() error {
		for _, n := range third.nodes {
			if !strings.Contains(n.logged(), "kai backup seal --lost") {
				return fmt.Errorf("node %s does not", n.name)
			}
		}
		return nil
	})
	third.mustKai("backup", "seal", "--lost", "--url", url, "--confirm", "e2e")
	third.mustBeReady()
	generation(third, 3)
	third.checkRecords(count)
	third.holds(kept)
	cl = third.client(1)
	for _, k := range gone {
		must(t, cl, "END", command{verb: "get", key: k})
	}
	// A founder that dies while it loads begins again.
	if out, err := third.kai("backup", "seal", "--url", url, "--admin", third.nodes[0].admin(), "--confirm", "e2e"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	third.destroy()
	fourth := prepare(t, 3, env(64)...)
	fourth.configure(3)
	for _, n := range fourth.nodes {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	for k := range 5 {
		time.Sleep(time.Duration(100+150*k) * time.Millisecond)
		n := fourth.nodes[k%3]
		n.kill()
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
	}
	fourth.mustBeReady()
	generation(fourth, 4)
	fourth.checkRecords(count)
	fourth.holds(kept)
}

// TestTwoHalves starts two halves of a group that do not see each other, and could each found a cluster: one does, and the other joins it once it sees it.
func TestTwoHalves(t *testing.T) {
	for round := range 3 {
		t.Run(fmt.Sprint("round ", round), func(t *testing.T) {
			env := []string{"KAI_PARTITIONS=16", "KAI_BACKUP_URL=file://" + t.TempDir(), "KAI_BACKUP_INTERVAL=0"}
			halves := []*cluster{prepare(t, 2, env...), prepare(t, 2, env...)}
			for _, h := range halves {
				h.configure(2)
				for _, n := range h.nodes {
					if err := n.start(); err != nil {
						t.Fatal(err)
					}
				}
			}
			ready := func(h *cluster) bool {
				ready, _ := h.nodes[0].readyz()
				return ready
			}
			eventually(t, slow, "one half serves", func() error {
				if ready(halves[0]) || ready(halves[1]) {
					return nil
				}
				return errors.New("none does")
			})
			loser := halves[0]
			if ready(loser) {
				loser = halves[1]
			}
			eventually(t, slow, "the other half knows of it", func() error {
				for _, n := range loser.nodes {
					if !strings.Contains(n.logged(), "the cluster is founded already, says the bucket") {
						return fmt.Errorf("node %s does not", n.name)
					}
				}
				return nil
			})
			time.Sleep(3 * time.Second)
			if ready(loser) {
				t.Fatal("both halves serve")
			}
			all := append(append([]*node{}, halves[0].nodes...), halves[1].nodes...)
			seeds := "KAI_DISCOVERY=static:" + all[0].gossip() + "," + all[2].gossip()
			for _, n := range loser.nodes {
				n.kill()
				if err := n.start(seeds); err != nil {
					t.Fatal(err)
				}
			}
			ids := map[string]bool{}
			for _, n := range all {
				if err := n.awaitReady(slow); err != nil {
					t.Fatal(err)
				}
				st, err := n.status()
				if err != nil {
					t.Fatal(err)
				}
				ids[st.Cluster.ID] = true
			}
			if len(ids) != 1 {
				t.Errorf("clusters %v", ids)
			}
		})
	}
}
