//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// box is how nodes run in containers of one image, as locked down as it is meant to run, on a network without a way out. This
// machine is its .254.
type box struct {
	image, network string
	net            string // the first three bytes of its addresses
}

// boxes makes the network for containers of the image that KAI_E2E_IMAGE names, or skips the test.
func boxes(t *testing.T) *box {
	t.Helper()
	wanted(t)
	needsTool(t, "docker", "docker.io")
	b := &box{image: os.Getenv("KAI_E2E_IMAGE")}
	if b.image == "" {
		t.Skip("SKIPPED: set KAI_E2E_IMAGE to an image (make image) to have nodes run in containers")
	}
	if out, err := exec.Command("docker", "image", "inspect", b.image).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no docker daemon answers, or it has no image %s: %s", b.image, out)
	}
	b.network = fmt.Sprintf("kai-e2e-%d", rand.Uint32())
	for try := 0; ; try++ {
		b.net = fmt.Sprintf("10.%d.%d", 64+rand.IntN(64), rand.IntN(256))
		out, err := exec.Command("docker", "network", "create", "--internal", "--subnet", b.net+".0/24", "--gateway", b.net+".254", b.network).CombinedOutput()
		if err == nil {
			break
		}
		if try == 5 {
			t.Fatalf("docker network create: %v: %s", err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("docker", "network", "rm", b.network).Run() })
	return b
}

// host is this machine's address on the network.
func (b *box) host() string { return b.net + ".254" }

func (b *box) named(n *node) string { return b.network + "-" + n.name }

// command runs a node in a container with a volume for its data, and ends as it ends.
func (b *box) command(n *node, env []string) *exec.Cmd {
	name := b.named(n)
	args := []string{"run", "--rm", "--name", name, "--network", b.network, "--ip", n.ip, "--read-only", "--cap-drop", "ALL",
		"--security-opt", "no-new-privileges", "-v", name + ":/data"}
	for _, e := range env {
		if !strings.HasSuffix(e, "=") { // what is to be empty is, in a container
			args = append(args, "-e", e)
		}
	}
	return exec.Command("docker", append(args, b.image, "node")...)
}

// into has all nodes of a prepared cluster run in containers, those to come as well.
func (b *box) into(c *cluster) {
	for i, n := range c.nodes {
		n.box, n.ip = b, fmt.Sprintf("%s.%d", b.net, i+1)
	}
	// Before the cluster's own cleanup, which only ends processes.
	c.t.Cleanup(func() {
		for _, n := range c.nodes {
			_ = exec.Command("docker", "rm", "-f", "-v", b.named(n)).Run()
			n.kill()
			_ = exec.Command("docker", "volume", "rm", "-f", b.named(n)).Run()
		}
	})
}
