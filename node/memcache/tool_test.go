package memcache

import (
	"net"
	"os/exec"
	"strings"
	"testing"
)

// TestMemccapable runs libmemcached's conformance tests of the text protocol.
func TestMemccapable(t *testing.T) {
	path, err := exec.LookPath("memccapable")
	if err != nil {
		t.Skip("SKIPPED: memccapable is not installed, so its tests are not run (apt-get install libmemcached-tools)")
	}
	_, addr := start(t, permissive(newModel()))
	host, port, _ := net.SplitHostPort(addr)
	out, err := exec.Command(path, "-h", host, "-p", port, "-a").CombinedOutput()
	if err != nil || strings.Contains(string(out), "FAIL") || !strings.Contains(string(out), "All tests passed") {
		t.Errorf("memccapable: %v\n%s", err, out)
	}
}
