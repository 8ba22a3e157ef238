package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a memcache server just good enough for the generator, with faults to order.
type fake struct {
	addr string
	// spoil, when set, may replace the reply to a request line.
	spoil func(line, reply string) string
	// stall, when set, is how long to wait before the answer to the n-th request of all.
	stall func(n int) time.Duration

	mu       sync.Mutex
	values   map[string]string
	requests int
}

func newFake(t testing.TB, f *fake) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f.addr, f.values = l.Addr().String(), map[string]string{}
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(nc)
		}
	}()
	return f
}

func (f *fake) serve(nc net.Conn) {
	defer nc.Close()
	in, out := bufio.NewReader(nc), bufio.NewWriter(nc)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		value := ""
		if strings.HasPrefix(line, "set ") {
			if value, err = in.ReadString('\n'); err != nil {
				return
			}
		}
		reply, wait := f.answer(strings.Fields(line), strings.TrimSuffix(value, "\r\n"))
		time.Sleep(wait)
		if f.spoil != nil {
			reply = f.spoil(line, reply)
		}
		out.WriteString(reply)
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

func (f *fake) answer(words []string, value string) (reply string, wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	if f.stall != nil {
		wait = f.stall(f.requests)
	}
	if words[0] == "set" {
		f.values[words[1]] = value
		return "STORED\r\n", wait
	}
	v, ok := f.values[words[1]]
	if !ok {
		return "END\r\n", wait
	}
	return fmt.Sprintf("VALUE %s 0 %d\r\n%s\r\nEND\r\n", words[1], len(v), v), wait
}
