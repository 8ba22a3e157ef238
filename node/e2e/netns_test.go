//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// insideNamespace is set for the copy of the test that runs in a network namespace.
const insideNamespace = "KAI_E2E_NETNS"

// inNamespace runs the calling test again, in a process with a network namespace of its own, and
// passes on how it ended. All bridges, cables and addresses made in there vanish with the process,
// however it ends, and touch nothing of the machine.
func inNamespace(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), insideNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if _, ended := err.(*exec.ExitError); err != nil && !ended {
		t.Skipf("SKIPPED: this machine makes no network namespace: %v", err)
	}
	if err != nil {
		t.Fatalf("in a network namespace: %v\n%s", err, out)
	}
	t.Logf("in a network namespace:\n%s", out)
	if strings.Contains(string(out), "--- SKIP") {
		t.Skip("SKIPPED: see above")
	}
}

// network is one network namespace per node, all on one bridge, with the test at its own end.
type network struct {
	t       *testing.T
	holders []*exec.Cmd // each keeps a namespace open
	nft     bool        // or iptables
}

// wire gives each node of a prepared cluster a namespace and an address in it. It skips the test
// when this kernel lacks what it takes.
func wire(t *testing.T, c *cluster) *network {
	t.Helper()
	w := &network{t: t}
	if _, err := exec.LookPath("nft"); err == nil {
		w.nft = true
	} else if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("SKIPPED: neither nft nor iptables is installed (apt-get install nftables)")
	}
	w.need("ip", "link", "set", "lo", "up")
	w.need("ip", "link", "add", "bridge", "type", "bridge")
	w.need("ip", "address", "add", "10.213.0.254/24", "dev", "bridge")
	w.need("ip", "link", "set", "bridge", "up")
	t.Cleanup(func() {
		for _, h := range w.holders {
			_ = h.Process.Kill()
			_ = h.Wait()
		}
	})
	for i, n := range c.nodes {
		holder := exec.Command("sleep", "infinity")
		holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := holder.Start(); err != nil {
			t.Skipf("SKIPPED: no network namespace for node %s: %v", n.name, err)
		}
		w.holders = append(w.holders, holder)
		n.ip = fmt.Sprintf("10.213.0.%d", i+1)
		n.wrap = []string{"nsenter", "-t", strconv.Itoa(holder.Process.Pid), "-n", "--"}
		w.need("ip", "link", "add", w.cable(i), "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(holder.Process.Pid))
		w.need("ip", "link", "set", w.cable(i), "master", "bridge", "up")
		w.at(n, "ip", "link", "set", "lo", "up")
		w.at(n, "ip", "address", "add", n.ip+"/24", "dev", "eth0")
		w.at(n, "ip", "link", "set", "eth0", "up")
		if w.nft {
			w.at(n, "nft", "add table ip e2e; add chain ip e2e input { type filter hook input priority 0; }")
		}
	}
	return w
}

// cable is the test's end of node i's cable.
func (w *network) cable(i int) string { return fmt.Sprintf("node%d", i) }

// need runs a command that sets the network up, and skips the test when it fails.
func (w *network) need(args ...string) {
	w.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		w.t.Skipf("SKIPPED: this machine cannot %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (w *network) at(n *node, args ...string) {
	w.t.Helper()
	w.need(append(append([]string{}, n.wrap...), args...)...)
}

// run is need for the time after the network has worked once: a failure is an error.
func (w *network) run(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// drop makes node at lose, in silence, every packet that comes from node from.
func (w *network) drop(at, from *node) error {
	args := append([]string{}, at.wrap...)
	if w.nft {
		return w.run(append(args, "nft", "add rule ip e2e input ip saddr "+from.ip+" drop")...)
	}
	return w.run(append(args, "iptables", "-A", "INPUT", "-s", from.ip, "-j", "DROP")...)
}

// plug connects a node's cable, or pulls it: then clients do not reach the node either.
func (w *network) plug(i int, in bool) error {
	return w.run("ip", "link", "set", w.cable(i), map[bool]string{true: "up", false: "down"}[in])
}

// heal undoes all drops and plugs all cables.
func (w *network) heal(c *cluster) error {
	for i, n := range c.nodes {
		args := append(append([]string{}, n.wrap...), "iptables", "-F", "INPUT")
		if w.nft {
			args = append(append([]string{}, n.wrap...), "nft", "flush chain ip e2e input")
		}
		if err := w.run(args...); err != nil {
			return err
		}
		if err := w.plug(i, true); err != nil {
			return err
		}
	}
	return nil
}
