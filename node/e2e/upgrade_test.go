//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// firstBuild is the commit of the first build that served clients: version 1 of the protocol, format 1 of the log, no moves.
const firstBuild = "20c0f14"

// older builds a commit of this repository, or skips the test where its history is not there.
func older(t *testing.T, commit string) (bin string) {
	t.Helper()
	wanted(t)
	needsTool(t, "git", "git")
	dir := t.TempDir()
	top, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Skip("SKIPPED: not in a git repository")
	}
	source, err := exec.Command("git", "-C", strings.TrimSpace(string(top)), "archive", commit).Output()
	if err != nil {
		t.Skipf("SKIPPED: commit %s is not in this clone", commit)
	}
	untar := exec.Command("tar", "-x", "-C", dir)
	untar.Stdin = bytes.NewReader(source)
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	bin = filepath.Join(dir, "kai-"+commit)
	build := exec.Command("go", "build", "-o", bin, "./node/cmd/kai")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build of %s: %v\n%s", commit, err, out)
	}
	return bin
}

// TestUpgrade: a cluster of the first build becomes one of this build, node by node, while clients work; in between nodes of
// both serve, one is killed and comes back, and nothing moves. Then the cluster can grow. Back to the first build a
// node does not go, and loses nothing by the attempt.
func TestUpgrade(t *testing.T) {
	s := seed(t)
	first := older(t, firstBuild)
	c := prepare(t, 3, "KAI_PARTITIONS=64")
	for _, n := range c.nodes {
		n.bin = first
	}
	c.found()
	l := c.load(s, c.nodes...)
	time.Sleep(seconds(t, 0.1))
	for i, n := range c.nodes {
		began := time.Now()
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		n.bin = ""
		c.mustStart(n)
		c.mustServe()
		t.Logf("node %s is of this build, and serves, %.1f s after it was stopped", n.name, time.Since(began).Seconds())
		time.Sleep(seconds(t, 0.1))
		if i == 0 { // one of the first build, then one of this build
			for _, n := range []*node{c.nodes[1], c.nodes[0]} {
				n.kill()
				time.Sleep(time.Second)
				c.mustStart(n)
			}
			c.mustServe()
		}
	}
	fourth := c.join()
	eventually(t, 2*slow, "the fourth node has its share", func() error {
		own, err := fourth.own()
		if err == nil && (own.Partitions < 40 || own.Partitions > 56) {
			return fmt.Errorf("it holds %d of 64 partitions", own.Partitions)
		}
		return err
	})
	l.verify(t, c)

	n := c.nodes[0]
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n.bin = first
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, slow, "the first build refuses what this one wrote", func() error {
		if _, ok := n.running(); ok {
			return errors.New("it runs")
		}
		return nil
	})
	if said := n.tail(3); !strings.Contains(said, "format 2, this build reads 1") {
		t.Errorf("the first build does not say why it refuses: %s", said)
	}
	n.kill() // forgets it
	n.bin = ""
	c.mustStart(n)
	l.ledger.verify(t, c)
}
