//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestMain builds the binary once and hands its path to the tests in KAI_E2E_BIN.
func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv("KAI_E2E") == "" || os.Getenv("KAI_E2E_BIN") != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "kai-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "kai")
	if out, err := exec.Command("go", "build", "-o", bin, "kai/node/cmd/kai").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: go build: %v\n%s", err, out)
		return 1
	}
	os.Setenv("KAI_E2E_BIN", bin)
	return m.Run()
}

// wanted skips the test unless end-to-end tests were asked for.
func wanted(t *testing.T) {
	t.Helper()
	if os.Getenv("KAI_E2E") == "" {
		t.Skip("SKIPPED: end-to-end tests start real processes and take minutes; set KAI_E2E=1")
	}
}

// needsRoot skips the test for ordinary users.
func needsRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("SKIPPED: needs root to %s", why)
	}
}

// needsTool skips the test when a command is not installed, and returns its path.
func needsTool(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIPPED: %s is not installed (apt-get install %s)", name, debian)
	}
	return path
}

// seconds is how long faults go on; share divides it for tests that need less.
func seconds(t *testing.T, share float64) time.Duration {
	t.Helper()
	s := 30.0
	if v := os.Getenv("KAI_E2E_SECONDS"); v != "" {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || f <= 0 {
			t.Fatalf("KAI_E2E_SECONDS=%q is not a number of seconds", v)
		}
		s = f
	}
	return time.Duration(s * share * float64(time.Second))
}

// seed is what the test's randomness comes from; it is printed when the test fails.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano()) % 1_000_000
	if v := os.Getenv("KAI_E2E_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("KAI_E2E_SEED=%q is not a number", v)
		}
		s = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again: KAI_E2E=1 KAI_E2E_SEED=%d go test ./node/e2e -count=1 -v -run '^%s$'", s, t.Name())
		}
	})
	return s
}
