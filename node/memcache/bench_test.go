package memcache

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"kai/node/record"
)

// trivial is a Store that costs nothing: every get finds the same value, everything else is Stored.
type trivial struct{ value []byte }

func (t trivial) Session() Session { return t }
func (t trivial) Close()           {}

func (t trivial) Execute(ops []record.Op, results []record.Result) time.Duration {
	for i := range ops {
		switch ops[i].Kind {
		case record.Get, record.GetAndTouch:
			results[i] = record.Result{Status: record.Found, Value: t.value, CAS: 1}
		default:
			results[i].Status = record.Stored
		}
	}
	return 0
}

// sink is a net.Conn that takes everything.
type sink struct{ net.Conn }

func (sink) Write(b []byte) (int, error) { return len(b), nil }

// loop makes a connection that can be fed without a network.
func loop(value int) *conn {
	s := NewServer(Options{Store: trivial{bytes.Repeat([]byte("v"), value)}})
	c := newConn(s, sink{})
	c.ready()
	return c
}

// feed has the connection answer request, as serve does.
func (c *conn) feed(request []byte) {
	c.work.r, c.work.w = 0, copy(c.in, request)
	for c.parse() {
		if !c.execute() {
			return
		}
	}
	c.flush()
}

var hotPath = []struct{ name, request string }{
	{"get", "get some-key-of-usual-length\r\n"},
	{"gets", "gets some-key-of-usual-length\r\n"},
	{"get-16-keys", "get" + strings.Repeat(" some-key-of-usual-length", 16) + "\r\n"},
	{"get-pipelined-16", strings.Repeat("get some-key-of-usual-length\r\n", 16)},
	{"set-100", "set some-key-of-usual-length 0 0 100\r\n" + strings.Repeat("v", 100) + "\r\n"},
	{"incr", "incr some-key-of-usual-length 1\r\n"},
	{"delete", "delete some-key-of-usual-length noreply\r\n"},
}

// TestNoAllocations: parsing and answering allocate nothing once the batch has its size.
func TestNoAllocations(t *testing.T) {
	for _, h := range hotPath {
		c, request := loop(100), []byte(h.request)
		if n := testing.AllocsPerRun(100, func() { c.feed(request) }); n != 0 {
			t.Errorf("%s: %v allocations", h.name, n)
		}
	}
}

func BenchmarkParseAndEncode(b *testing.B) {
	for _, h := range hotPath {
		b.Run(h.name, func(b *testing.B) {
			c, request := loop(100), []byte(h.request)
			b.ReportAllocs()
			b.SetBytes(int64(len(request)))
			for b.Loop() {
				c.feed(request)
			}
		})
	}
}

func BenchmarkEncodeValue(b *testing.B) {
	for _, size := range []int{100, 4 << 10, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c := loop(size)
			res := record.Result{Status: record.Found, Value: c.server.opt.Store.(trivial).value}
			b.ReportAllocs()
			for b.Loop() {
				c.value([]byte("some-key-of-usual-length"), &res, &entry{form: formValue, last: true})
				c.flush()
			}
		})
	}
}

// serveFor names the environment variable that makes this test binary a server: a benchmark compares
// fairly only when both servers are processes of their own.
const serveFor = "KAI_MEMCACHE_TEST_SERVER"

// TestServeForBenchmark is no test: see serveFor. It serves until its input ends.
func TestServeForBenchmark(t *testing.T) {
	if os.Getenv(serveFor) == "" {
		t.Skip("only as a process of BenchmarkLoopback")
	}
	_, addr := start(t, Options{Store: trivial{bytes.Repeat([]byte("v"), 100)}, Version: os.Getenv(serveFor + "_V"), MaxConnections: 20_000})
	fmt.Println(addr)
	if out := os.Getenv(serveFor); out != "1" {
		f, _ := os.Create(out)
		pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	io.Copy(io.Discard, os.Stdin)
}

// process starts this binary as a server, and returns its address and process id.
func process(b testing.TB) (addr string, pid int) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestServeForBenchmark$")
	cmd.Env = append(os.Environ(), serveFor+"="+cmp.Or(os.Getenv(serveFor), "1"))
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	addr, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(addr), cmd.Process.Pid
}

// BenchmarkLoopback asks the whole server over loopback: 32 connections, 100-byte values, 90 % gets,
// at depth 1 and 16; and memcached -t 2 in the same way, where it is installed.
func BenchmarkLoopback(b *testing.B) {
	for _, depth := range []int{1, 16} {
		b.Run(fmt.Sprintf("kai/depth-%d", depth), func(b *testing.B) {
			addr, _ := process(b)
			ask(b, addr, depth)
		})
		b.Run(fmt.Sprintf("memcached/depth-%d", depth), func(b *testing.B) {
			ask(b, memcached(b, "-t", "2"), depth)
		})
	}
}

func ask(b *testing.B, addr string, depth int) {
	const connections = 32
	value := strings.Repeat("v", 100)
	set := "set some-key-of-usual-length 0 0 100\r\n" + value + "\r\n"
	get, hit := "get some-key-of-usual-length\r\n", "VALUE some-key-of-usual-length 0 100\r\n"+value+"\r\nEND\r\n"
	expect(b, prime(b, addr, set), "STORED\r\n")
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range connections {
		nc := dial(b, addr)
		wg.Go(func() {
			answer := make([]byte, 16*len(hit))
			for n := i; n < b.N; n += connections * depth {
				request, want := "", 0
				for d := range depth {
					if (n/connections+d)%10 == 9 {
						request, want = request+set, want+len("STORED\r\n")
					} else {
						request, want = request+get, want+len(hit)
					}
				}
				if _, err := io.WriteString(nc, request); err != nil {
					b.Error(err)
					return
				}
				if _, err := io.ReadFull(nc, answer[:want]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
}

func prime(b *testing.B, addr, request string) net.Conn {
	nc := dial(b, addr)
	if _, err := io.WriteString(nc, request); err != nil {
		b.Fatal(err)
	}
	return nc
}
