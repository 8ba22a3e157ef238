//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// allowFiles raises this process's limit of open files, which its children inherit.
func allowFiles(t *testing.T, n uint64) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if l.Cur >= n {
		return
	}
	was := l
	l.Cur, l.Max = n, max(l.Max, n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Skipf("SKIPPED: %d open files are not allowed here (ulimit -n %d): %v", n, was.Cur, err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was) })
}

// growth samples a node's resident memory for some time and returns the most it grew above before.
func growth(t *testing.T, n *node, before int64, during time.Duration) int64 {
	t.Helper()
	var most int64
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		now, err := n.rss()
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, now-before)
	}
	return most
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// TestMemory: neither idle connections nor clients that ask for much and read nothing may cost a
// node more memory than it can have.
func TestMemory(t *testing.T) {
	const idle = 10_000
	wanted(t)
	allowFiles(t, idle+2000)
	c := start(t, 1, fmt.Sprintf("KAI_MAX_CONNECTIONS=%d", idle+500), "KAI_DURABILITY=interval")
	n := c.nodes[0]
	c.fill(0, "warm", 2000)
	t.Run("idle connections", func(t *testing.T) { idleConnections(t, c.in(t), n, idle) })
	t.Run("slow readers", func(t *testing.T) { slowReaders(t, c.in(t), n) })
}

// idleConnections opens connections that ask once and then stay.
func idleConnections(t *testing.T, c *cluster, n *node, count int) {
	before, err := n.rss()
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	defer func() {
		for _, nc := range conns {
			nc.Close()
		}
	}()
	answer := make([]byte, 64)
	for range count {
		nc, err := net.DialTimeout("tcp", n.client(), patience)
		if err != nil {
			t.Fatalf("connection %d: %v", len(conns), err)
		}
		conns = append(conns, nc)
		_ = nc.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(nc, "get warm-1\r\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := nc.Read(answer); err != nil || !strings.HasPrefix(string(answer[:got]), "VALUE warm-1 ") {
			t.Fatalf("connection %d: %q, %v", len(conns), answer[:got], err)
		}
	}
	grown := growth(t, n, before, 3*time.Second)
	t.Logf("%d idle connections: %s above %s, %.1f KiB each", count, mebibytes(grown), mebibytes(before), float64(grown)/float64(count)/1024)
	if grown > 100<<20 {
		t.Errorf("%d idle connections cost %s, at most 100 MiB are allowed", count, mebibytes(grown))
	}
	if err := c.serves(); err != nil {
		t.Errorf("beside %d idle connections: %v", count, err)
	}
}

// slowReaders asks for 1,000 values at a time, again and again, and reads none of them.
func slowReaders(t *testing.T, c *cluster, n *node) {
	const (
		readers = 64
		keys    = 1000
		asks    = 20
		size    = 10 << 10
		allowed = 256 << 20 // all that was asked for would be 12 GiB; one answer for each reader 625 MiB
	)
	cl := c.client(0)
	var request strings.Builder
	request.WriteString("get")
	for k := range keys {
		key := fmt.Sprintf("slow-%d", k)
		if r, _ := cl.do(command{verb: "set", key: key, value: strings.Repeat("z", size)}); r.word != "STORED" {
			t.Fatalf("%s%s", r.word, r.why)
		}
		request.WriteString(" " + key)
	}
	request.WriteString("\r\n")
	before, err := n.rss()
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range readers {
		nc, err := net.DialTimeout("tcp", n.client(), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)) // the node may stop reading: that is the point
		_, _ = io.WriteString(nc, strings.Repeat(request.String(), asks))
		conns = append(conns, nc)
	}
	grown := growth(t, n, before, 5*time.Second)
	t.Logf("%d slow readers of %d values of %d KiB: %s above %s", readers, keys, size>>10, mebibytes(grown), mebibytes(before))
	if grown > allowed {
		t.Errorf("slow readers cost %s, at most %s are allowed", mebibytes(grown), mebibytes(allowed))
	}
	if err := c.serves(); err != nil {
		t.Errorf("beside %d slow readers: %v", readers, err)
	}
	patient(t, conns[0], keys, size)
}

// patient reads one answer to the end after all: slow is not broken.
func patient(t *testing.T, nc net.Conn, keys, size int) {
	t.Helper()
	_ = nc.SetReadDeadline(time.Now().Add(slow))
	in := bufio.NewReaderSize(nc, 64<<10)
	for k := range keys {
		line, err := in.ReadString('\n')
		if want := fmt.Sprintf("VALUE slow-%d 0 %d\r\n", k, size); err != nil || line != want {
			t.Fatalf("value %d of a slow reader: %q, %v", k, line, err)
		}
		if _, err := in.Discard(size + 2); err != nil {
			t.Fatal(err)
		}
	}
	if end, err := in.ReadString('\n'); err != nil || end != "END\r\n" {
		t.Errorf("behind the values of a slow reader: %q, %v", end, err)
	}
}
