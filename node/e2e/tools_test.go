//go:build linux

package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTools holds Kai to Debian's libmemcached tools: what they do with memcached works with Kai.
func TestTools(t *testing.T) {
	c := start(t, 1, "KAI_FLUSH_ALL=true", "KAI_EXPIRATION=true")
	host, port, err := net.SplitHostPort(c.nodes[0].client())
	if err != nil {
		t.Fatal(err)
	}
	servers := "--servers=" + c.nodes[0].client()
	t.Run("memccapable", func(t *testing.T) {
		out, err := exec.Command(needsTool(t, "memccapable", "libmemcached-tools"), "-h", host, "-p", port, "-a").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "All tests passed") {
			t.Errorf("memccapable -a: %v\n%s", err, out)
		}
	})
	t.Run("memccp, memccat", func(t *testing.T) {
		memccp, memccat := needsTool(t, "memccp", "libmemcached-tools"), needsTool(t, "memccat", "libmemcached-tools")
		dir := t.TempDir()
		for name, data := range map[string]string{"empty": "", "text": "two\r\nlines\r\n", "binary": "\x00\xff\r\nEND\r\n", "large": strings.Repeat("0123456789abcdef", 60<<10)} {
			path, back := filepath.Join(dir, name), filepath.Join(dir, "back")
			if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(memccp, servers, path).CombinedOutput(); err != nil {
				t.Fatalf("memccp %s: %v\n%s", name, err, out)
			}
			if out, err := exec.Command(memccat, servers, "--file="+back, name).CombinedOutput(); err != nil {
				t.Fatalf("memccat %s: %v\n%s", name, err, out)
			}
			if got, err := os.ReadFile(back); err != nil || string(got) != data {
				t.Errorf("%s came back different: %d bytes of %d, %v", name, len(got), len(data), err)
			}
		}
		if err := exec.Command(memccat, servers, "never-written").Run(); err == nil {
			t.Error("memccat found a key that nobody wrote")
		}
	})
	t.Run("memcstat", func(t *testing.T) {
		out, err := exec.Command(needsTool(t, "memcstat", "libmemcached-tools"), servers).CombinedOutput()
		if err != nil {
			t.Fatalf("memcstat: %v\n%s", err, out)
		}
		for _, name := range []string{"pid", "uptime", "version", "curr_items", "cmd_get", "cmd_set", "curr_connections", "kai_node", "kai_quorum", "kai_partitions"} {
			if !strings.Contains(string(out), " "+name+": ") && !strings.Contains(string(out), "\t"+name+": ") {
				t.Errorf("memcstat shows no %s:\n%s", name, out)
			}
		}
	})
}
