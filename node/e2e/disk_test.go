//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk mounts a tmpfs of a few MiB for a node's data. It skips the test where that is forbidden.
func smallDisk(t *testing.T, n *node, megabytes int) {
	t.Helper()
	if err := os.MkdirAll(n.data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("e2e", n.data, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Skipf("SKIPPED: this machine mounts no tmpfs: %v", err)
	}
	t.Cleanup(func() {
		n.kill()
		if err := syscall.Unmount(n.data, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// hog takes all of the disk but some bytes, and returns what gives it back.
func hog(t *testing.T, dir string, leave int64) (release func()) {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := int64(s.Bavail)*s.Bsize - leave; n > 0 {
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
			t.Fatal(err)
		}
	}
	return func() { os.Remove(f.Name()) }
}

// bulk is a large value for a key of a set test.
func bulk(key string) string { return valueOf(key) + " " + strings.Repeat("x", 64<<10) }

// TestDiskFull fills the disk of a node while it is written to.
func TestDiskFull(t *testing.T) {
	wanted(t)
	needsRoot(t, "mount a small disk")
	t.Run("one node", diskFullAlone)
	t.Run("one of three", diskFullOfThree)
}

// diskFullAlone: a node alone must refuse writes and go on with reads, and write again when it can.
func diskFullAlone(t *testing.T) {
	c := prepare(t, 1)
	n := c.nodes[0]
	smallDisk(t, n, 1024)
	c.found()
	keys := c.fill(0, "small", 200)
	release := hog(t, n.data, 8<<20)
	cl := c.client(0)
	var full reply
	acknowledged := map[string]bool{}
	for i := 0; full.why == ""; i++ {
		if i == 4096 {
			t.Fatal("256 MiB went onto a disk with 8 MiB free; is the node writing there at all?")
		}
		key := fmt.Sprintf("bulk-%d", i)
		r, ok := cl.do(command{verb: "set", key: key, value: bulk(key)})
		if _, running := n.running(); !ok || !running || r.fate == senseless {
			t.Fatalf("a write to a full disk must be answered with SERVER_ERROR; running %v, reply %s%s", running, r.word, r.why)
		}
		if r.word == "STORED" {
			acknowledged[key] = true
		}
		full = r
	}
	t.Logf("full after %d values of 64 KiB: %s", len(acknowledged), full.why)
	c.holds(keys)
	bulkHolds(t, cl, acknowledged)
	release()
	eventually(t, slow, "writes go on when the disk has room", func() error {
		if r, ok := cl.do(command{verb: "set", key: "after", value: "1"}); r.word != "STORED" || !ok {
			return fmt.Errorf("%s%s", r.word, r.why)
		}
		return nil
	})
	c.holds(keys)
	bulkHolds(t, cl, acknowledged)
	n.kill()
	c.again()
	c.holds(keys)
	bulkHolds(t, c.client(0), acknowledged)
}

func bulkHolds(t *testing.T, cl *client, keys map[string]bool) {
	t.Helper()
	for key := range keys {
		if r, _ := cl.do(command{verb: "get", key: key}); r.value != bulk(key) {
			t.Errorf("%s was acknowledged; now %s%s, %d bytes", key, r.word, r.why, len(r.value))
		}
	}
}

// diskFullOfThree: the two others carry on, for clients of the full node too.
func diskFullOfThree(t *testing.T) {
	c := prepare(t, 3)
	n := c.nodes[2]
	smallDisk(t, n, 1024)
	c.found()
	keys := c.fill(2, "small", 200)
	release := hog(t, n.data, 2<<20)
	for i := range 3 {
		cl := c.client(i)
		for k := range 100 {
			q := command{verb: "set", key: fmt.Sprintf("bulk-%d-%d", i, k), value: strings.Repeat("y", 64<<10)}
			eventually(t, slow, "the cluster goes on", func() error { // the first that hit the full disk may fail
				if r, ok := cl.do(q); r.word != "STORED" || !ok {
					return fmt.Errorf("set through node %s: %s%s", c.nodes[i].name, r.word, r.why)
				}
				return nil
			})
		}
	}
	if _, running := n.running(); !running {
		t.Fatalf("the node with the full disk has ended:\n%s", n.tail(10))
	}
	ready, why := n.readyz()
	t.Logf("the node with the full disk: ready %v: %s", ready, strings.TrimSpace(why))
	c.holds(keys)
	release()
	c.again()
	c.holds(keys)
	time.Sleep(time.Second) // let it vote again before the others go
	c.nodes[0].kill()
	eventually(t, slow, "the recovered node votes", func() error {
		return (&cluster{nodes: c.nodes[1:]}).serves()
	})
}
