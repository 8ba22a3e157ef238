//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fileCalls change what a killed process leaves behind.
const fileCalls = "openat,mkdirat,unlinkat,renameat,renameat2,linkat,ftruncate,fallocate,write,writev,pwrite64,io_submit,fsync,fdatasync,msync,mmap"

// pause between a call and the next of its thread, long enough to be killed in.
const pause = 2 * time.Millisecond

// TestKilledWhileItStarts: whatever call a node is killed after, while it makes its data directory or
// opens it again, it starts from what is there, without help, and with all that it had.
func TestKilledWhileItStarts(t *testing.T) {
	strace := needsTool(t, "strace", "strace")
	points := 12
	if os.Getenv("KAI_E2E_SOAK") != "" {
		points = 1 << 20
	}
	c := prepare(t, 1)
	c.configure(1)
	n := c.nodes[0]
	pipe := filepath.Join(c.dir, "calls")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	// -D: the node is our own child, and strace ends with it.
	wrap := []string{strace, "-D", "-f", "-qq", "-o", pipe, "-e", "trace=" + fileCalls,
		"-e", fmt.Sprintf("inject=%s:delay_exit=%d", fileCalls, pause.Microseconds())}

	// until starts the node and kills it after so many calls; calls are those seen, fewer if it was ready before.
	until := func(t *testing.T, limit int) (calls []string) {
		t.Helper()
		n.wrap = wrap
		defer func() { n.wrap = nil }()
		done := make(chan struct{})
		go func() {
			defer close(done)
			f, err := os.Open(pipe) // waits for strace
			if err != nil {
				return
			}
			defer f.Close()
			for lines := bufio.NewScanner(f); lines.Scan(); {
				if len(calls) < limit {
					if calls = append(calls, lines.Text()); len(calls) == limit {
						n.signal(syscall.SIGKILL)
					}
				}
			}
		}()
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
		for {
			if _, ok := n.running(); !ok {
				break
			}
			if ready, _ := n.readyz(); ready {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		n.kill()
		<-done
		return calls
	}
	// goesOn starts the node as it is.
	goesOn := func(t *testing.T, after, keys []string) {
		t.Helper()
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
		if err := n.awaitReady(slow); err != nil {
			t.Fatalf("killed after\n%s\n%v", strings.Join(after[max(0, len(after)-3):], "\n"), err)
		}
		if len(keys) > 0 {
			c.in(t).holds(keys)
		}
	}
	for _, which := range []string{"first", "again"} {
		t.Run(which, func(t *testing.T) {
			var keys []string
			begin := func() {
				if err := os.RemoveAll(n.data); err != nil {
					t.Fatal(err)
				}
			}
			if which == "again" {
				goesOn(t, nil, nil)
				keys = c.fill(0, "kept", 50)
				n.kill()
				begin = func() {}
			}
			begin()
			whole := until(t, 1<<30)
			if len(whole) < 20 {
				t.Fatalf("strace saw %d calls: %s", len(whole), whole)
			}
			at := rand.Perm(len(whole))
			tried := 0
			for _, limit := range at[:min(points, len(at))] {
				begin()
				calls := until(t, 1+limit)
				goesOn(t, calls, keys)
				n.kill()
				tried++
			}
			t.Logf("killed after %d of %d calls", tried, len(whole))
		})
	}
}
