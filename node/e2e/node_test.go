//go:build linux

package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// node is one kai process, and what it needs to be started again as the same node.
type node struct {
	name string
	ip   string
	data string   // directory
	log  string   // file; every start appends
	env  []string // KAI_ settings
	wrap []string // command in front of the binary, such as nsenter; it must exec
	bin  string   // another build's; empty: this one's
	box  *box     // nil: a process of this machine

	mu   sync.Mutex
	proc *process // nil when not running
}

// process is one run of a node.
type process struct {
	cmd  *exec.Cmd
	box  string // name of the container that cmd waits for; empty: cmd is the node
	done chan struct{}
	err  error // of Wait; read it after done
}

// send sends a signal; the process may have ended meanwhile.
func (p *process) send(s syscall.Signal) {
	if p.box == "" {
		_ = p.cmd.Process.Signal(s)
	} else if s != 0 {
		_ = exec.Command("docker", "kill", "--signal", strconv.Itoa(int(s)), p.box).Run()
	}
}

func (n *node) client() string { return n.ip + ":11211" }
func (n *node) gossip() string { return n.ip + ":11213" }
func (n *node) admin() string  { return n.ip + ":11214" }

// start runs the node; more settings override its own for this run. It does not wait for readiness.
func (n *node) start(more ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc != nil {
		return fmt.Errorf("node %s runs already", n.name)
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	p := &process{done: make(chan struct{})}
	if n.box != nil {
		p.cmd, p.box = n.box.command(n, slices.Concat(n.env, more)), n.box.named(n)
	} else {
		args := append(append([]string{}, n.wrap...), cmp.Or(n.bin, os.Getenv("KAI_E2E_BIN")), "node")
		p.cmd = exec.Command(args[0], args[1:]...)
		p.cmd.Env = slices.Concat(foreign(os.Environ()), []string{"KAI_DATA_DIR=" + n.data,
			"KAI_LISTEN=" + n.client(), "KAI_PEER_LISTEN=" + n.ip + ":11212", "KAI_GOSSIP_LISTEN=" + n.gossip(), "KAI_ADMIN_LISTEN=" + n.admin()}, n.env, more)
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// Killed with the test, also when the test itself is killed; not reached by Ctrl-C before it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	fmt.Fprintf(log, "---- start %s %q\n", time.Now().Format(time.StampMilli), more)
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("node %s: %w", n.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	n.proc = p
	return nil
}

// foreign drops the KAI_ settings of the environment, which belong to the test.
func foreign(env []string) (kept []string) {
	for _, e := range env {
		if !strings.HasPrefix(e, "KAI_") {
			kept = append(kept, e)
		}
	}
	return kept
}

func (n *node) signal(s syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc != nil {
		n.proc.send(s)
	}
}

func (n *node) pause()  { n.signal(syscall.SIGSTOP) }
func (n *node) resume() { n.signal(syscall.SIGCONT) }

// kill ends the node with SIGKILL and waits until it is gone. A node that does not run is left alone.
func (n *node) kill() { _ = n.end(syscall.SIGKILL, time.Minute) }

// stop asks the node to end and waits; it fails when the node does not exit with 0 in time.
func (n *node) stop() error { return n.end(syscall.SIGTERM, 20*time.Second) }

func (n *node) end(s syscall.Signal, limit time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.proc
	if p == nil {
		return nil
	}
	n.proc = nil
	p.send(s)
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
		p.send(syscall.SIGKILL)
		<-p.done
		return fmt.Errorf("node %s did not end within %v after %v", n.name, limit, s)
	}
}

// running reports whether the process is there, and its pid.
func (n *node) running() (pid int, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc == nil {
		return 0, false
	}
	select {
	case <-n.proc.done:
		return 0, false
	default:
		return n.proc.cmd.Process.Pid, true
	}
}

// readyz asks the node whether it is ready; the text holds its reasons, or why it did not answer.
func (n *node) readyz() (ready bool, text string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.admin()+"/readyz", nil)
	if err != nil {
		return false, err.Error()
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err.Error()
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	return res.StatusCode == http.StatusOK, string(body)
}

// awaitReady waits until the node is ready, at most limit.
func (n *node) awaitReady(limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		ready, text := n.readyz()
		if ready {
			return nil
		}
		if _, ok := n.running(); !ok {
			return fmt.Errorf("node %s has ended; the end of its log:\n%s", n.name, n.tail(15))
		}
		if time.Now().After(end) {
			return fmt.Errorf("node %s is not ready after %v: %s", n.name, limit, text)
		}
	}
}

// logged returns all the node has written since its first start.
func (n *node) logged() string {
	b, _ := os.ReadFile(n.log)
	return string(b)
}

// tail is the last lines of the log.
func (n *node) tail(lines int) string {
	all := strings.Split(strings.TrimSpace(n.logged()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// rss is the resident memory of the process in bytes.
func (n *node) rss() (int64, error) {
	pid, ok := n.running()
	if !ok {
		return 0, errors.New("not running")
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}
