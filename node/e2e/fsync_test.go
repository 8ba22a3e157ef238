//go:build linux

package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// syncs are the calls that make something durable; io_submit is how the log does it.
const syncs = "io_submit,fsync,fdatasync,msync,sync_file_range,syncfs"

// failSyncs makes every flush to disk of a running node fail with EIO, until the returned function
// is called.
func failSyncs(t *testing.T, n *node) (restore func()) {
	t.Helper()
	strace := needsTool(t, "strace", "strace")
	pid, _ := n.running()
	cmd := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+syncs,
		"-e", "inject="+syncs+":error=EIO", "-p", strconv.Itoa(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM} // it detaches
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it always ends by our signal
		close(ended)
	}()
	restore = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	}
	t.Cleanup(restore)
	for !traced(pid) {
		select {
		case <-ended:
			t.Skipf("SKIPPED: strace may not attach here: %s", said.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return restore
}

// traced reports whether every thread of a process has a tracer.
func traced(pid int) bool {
	out, _ := exec.Command("sh", "-c", fmt.Sprintf("cat /proc/%d/task/*/status", pid)).Output()
	pids := regexp.MustCompile(`(?m)^TracerPid:\s+(\d+)$`).FindAllStringSubmatch(string(out), -1)
	for _, p := range pids {
		if p[1] == "0" {
			return false
		}
	}
	return len(pids) > 0
}

// TestFsyncErrors: after a failed fsync nobody knows what is on disk, and a second one may well
// succeed without having written anything. So the node must stop voting, say so, and stay so until
// it was restarted; the others go on.
func TestFsyncErrors(t *testing.T) {
	wanted(t)
	c := start(t, 3)
	a, b, bad := c.nodes[0], c.nodes[1], c.nodes[2]
	keys := c.fill(2, "before", 200)
	restore := failSyncs(t, bad)
	cl := c.client(0)
	eventually(t, slow, "the node with the bad disk says so in /readyz", func() error {
		cl.do(command{verb: "set", key: "prod", value: "1"})
		if ready, why := bad.readyz(); ready {
			return fmt.Errorf("ready: %s", why)
		}
		return nil
	})
	_, why := bad.readyz()
	if !strings.Contains(why, "vote") && !strings.Contains(why, "disk") {
		t.Errorf("/readyz does not say that the node has stopped voting: %s", why)
	}
	if log := strings.ToLower(bad.logged()); !strings.Contains(log, "sync") || !strings.Contains(log, "input/output error") {
		t.Errorf("the log says nothing of a failed fsync:\n%s", bad.tail(5))
	}
	keys = append(keys, c.fill(0, "during", 200)...)
	keys = append(keys, c.fill(1, "during-b", 200)...)
	restore()
	if ready, _ := bad.readyz(); ready {
		t.Error("the node is ready again although it cannot know what is on its disk")
	}
	votesNot(t, c, a, b)
	bad.kill()
	c.again()
	c.holds(keys)
	a.kill()
	eventually(t, slow, "the restarted node votes", func() error {
		return (&cluster{nodes: []*node{b, bad}}).serves()
	})
}

// votesNot stops node b: with a good node and one that must not vote, no write may be acknowledged.
func votesNot(t *testing.T, c *cluster, a, b *node) {
	t.Helper()
	b.kill()
	cl, err := dial(a.client())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.close()
	for i := range 5 {
		if r, _ := cl.do(command{verb: "set", key: fmt.Sprintf("vote-%d", i), value: "1"}); r.word == "STORED" {
			t.Error("a write was acknowledged with one good replica: the node with the bad disk voted")
		}
	}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	if err := b.awaitReady(slow); err != nil {
		t.Fatal(err)
	}
}
