package memcache

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kai/node/record"
)

// TestIdleConnections: a server with 10,000 connections that have all been used and are idle now
// takes at most 100 MB.
func TestIdleConnections(t *testing.T) {
	const connections, limit = 10_000, 100 << 20
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < connections+200 {
		t.Skipf("SKIPPED: needs %d open files (ulimit -n), has %d", connections+200, files.Cur)
	}
	if raced {
		t.Skip("SKIPPED: the race detector multiplies memory")
	}
	addr, pid := process(t)
	if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err != nil {
		t.Skip("SKIPPED: no /proc to read the size of a process from")
	}
	ready := "VALUE k 0 100\r\n" + strings.Repeat("v", 100) + "\r\nEND\r\n"
	var wg sync.WaitGroup
	conns := make([]net.Conn, connections)
	const hands = 8
	for hand := range hands {
		wg.Go(func() {
			answer := make([]byte, len(ready))
			for i := hand; i < connections; i += hands {
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				conns[i] = nc
				io.WriteString(nc, "get k\r\n")
				if _, err := io.ReadFull(nc, answer); err != nil || string(answer) != ready {
					t.Errorf("connection %d: %q, %v", i, answer, err)
					return
				}
			}
		})
	}
	wg.Wait()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d idle connections: %d MB resident", connections, kb>>10)
	if kb<<10 > limit {
		t.Errorf("%d MB, want at most %d", kb>>10, limit>>20)
	}
	for _, nc := range conns {
		if nc != nil {
			nc.Close()
		}
	}
}

// holding is a Store of one large value that knows how many bytes of values its sessions hold.
type holding struct {
	value []byte
	mu    sync.Mutex
	moved *sync.Cond
	held  map[*holdingSession]int // keys of the last Execute
	calls map[*holdingSession]int
}

type holdingSession struct{ *holding }

func (h *holding) Session() Session { return &holdingSession{h} }

func (s *holdingSession) Close() {}

func (s *holdingSession) Execute(ops []record.Op, results []record.Result) time.Duration {
	took := trivial{s.value}.Execute(ops, results)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[s] = len(ops)
	s.calls[s]++
	s.moved.Broadcast()
	return took
}

// TestSlowReaders: 50 clients ask for 1,000 values of 1 MiB each, in one get or pipelined, and read
// slowly. What the server and the Store hold for them stays small.
func TestSlowReaders(t *testing.T) {
	const readers, keys, size = 50, 1000, 1 << 20
	h := &holding{value: bytes.Repeat([]byte("v"), size), held: map[*holdingSession]int{}, calls: map[*holdingSession]int{}}
	h.moved = sync.NewCond(&h.mu)
	_, addr := start(t, Options{Store: h})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range readers {
		request := "get" + strings.Repeat(" k", keys) + "\r\n"
		if i%2 == 1 {
			request = strings.Repeat("get k\r\n", keys)
		}
		nc := dial(t, addr)
		if _, err := io.WriteString(nc, request); err != nil {
			t.Fatal(err)
		}
		// Enough that the first batch, made before the size of values is known, is over.
		if _, err := io.CopyN(io.Discard, nc, 12*size); err != nil {
			t.Fatal(err)
		}
	}
	h.mu.Lock()
	for s := range h.calls {
		for h.calls[s] < 2 {
			h.moved.Wait()
		}
	}
	held := 0
	for _, n := range h.held {
		held += n
	}
	h.mu.Unlock()
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("the Store holds %d values, the server %d kB", held, grown>>10)
	if held > 2*readers {
		t.Errorf("the Store holds %d values for %d readers", held, readers)
	}
	if grown > readers*(256<<10) {
		t.Errorf("the server holds %d kB", grown>>10)
	}
}

// TestIdleReleasesValues: the Store is told when large values have been sent, and only then.
func TestIdleReleasesValues(t *testing.T) {
	h := &holding{value: make([]byte, 1<<20), held: map[*holdingSession]int{}, calls: map[*holdingSession]int{}}
	h.moved = sync.NewCond(&h.mu)
	_, addr := start(t, Options{Store: h})
	nc := dial(t, addr)
	io.WriteString(nc, "get k\r\n")
	if _, err := io.CopyN(io.Discard, nc, 1<<20); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.held {
		for h.held[s] > 0 {
			h.moved.Wait()
		}
	}
}

// TestUploadsGrowWithBytes: an announced length costs nothing until the bytes arrive.
func TestUploadsGrowWithBytes(t *testing.T) {
	c := loop(1)
	c.server.opt.MaxValueBytes = 64 << 20
	c.server.buffers.max = maxShortLine + c.server.opt.MaxValueBytes + 2
	line := "set a 0 0 60000000\r\n"
	c.w = copy(c.in, line)
	for got := len(line); got < 3<<20; {
		if c.parse() {
			t.Fatal("executed half an upload")
		}
		if !c.server.buffers.room(c.work) {
			t.Fatal("no room")
		}
		if len(c.in) > growth*max(got, baseBuffer) {
			t.Fatalf("%d bytes held for %d received", len(c.in), got)
		}
		got += len(c.in) - c.w
		c.w = len(c.in)
	}
	c.server.buffers.put(c.work)
	c.work = nil
	if c.ready(); len(c.in) != baseBuffer {
		t.Errorf("%d bytes held after the upload", len(c.in))
	}
}
