package memcache

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"kai/node/record"
)

// model is a Store in memory: record.Op.Apply behind a lock.
type model struct {
	mu      sync.Mutex
	records map[string]*record.Record
	serial  record.Version
	limit   int
	now     func() time.Time
	// fail, when set, may decide an operation instead of the store.
	fail func(op *record.Op) (record.Result, bool)

	sessions, closed int
	largest          int // operations in one Execute
}

func newModel() *model {
	return &model{records: map[string]*record.Record{}, limit: 1 << 20, now: time.Now}
}

type modelSession struct{ *model }

func (m *model) Session() Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions++
	return modelSession{m}
}

func (s modelSession) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
}

func (s modelSession) Execute(ops []record.Op, results []record.Result) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.largest = max(s.largest, len(ops))
	now := uint32(s.now().Unix())
	for i := range ops {
		op := &ops[i]
		if s.fail != nil {
			if res, ok := s.fail(op); ok {
				results[i] = res
				continue
			}
		}
		r := s.records[string(op.Key)]
		if r == nil {
			r = &record.Record{}
			if op.Mutates() {
				s.records[string(op.Key)] = r
			}
		}
		s.serial++
		var changed bool
		if results[i], changed = op.Apply(r, s.serial, now, s.limit); changed {
			r.Value = bytes.Clone(r.Value) // op.Value is part of the connection's buffer
		}
	}
	return 0
}

// Stats and FlushAll make model an Admin.
func (m *model) Stats(emit func(name, value string)) {
	emit("curr_items", "7")
	emit("kai_node", "0123456789abcdef")
}

func (m *model) FlushAll(delay time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.records {
		if at := uint32(m.now().Add(delay).Unix()); r.Expiry == 0 || r.Expiry > at {
			r.Expiry = at
		}
	}
	return nil
}

// permissive is memcached's behaviour: everything allowed.
func permissive(m *model) Options {
	return Options{Store: m, Admin: m, Version: "1.6.27-kai", Expiration: true, FlushAll: true}
}

// start serves o on a loopback port until the test ends.
func start(t testing.TB, o Options) (*Server, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, ln.Addr().String()
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc.(*net.TCPConn)
}

// talk sends request and the end of input, and returns all that is answered.
func talk(t testing.TB, addr, request string) string {
	t.Helper()
	nc := dial(t, addr)
	defer nc.Close()
	go func() {
		io.WriteString(nc, request)
		nc.CloseWrite()
	}()
	answer, _ := io.ReadAll(nc) // a reset ends it, like an end of input
	return string(answer)
}

// expect reads exactly want.
func expect(t testing.TB, nc net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(nc, got)
	if err != nil || string(got) != want {
		t.Fatalf("got %q (%v), want %q", got[:n], err, want)
	}
}
