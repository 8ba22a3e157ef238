package rawio

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func pair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if near, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// feed is a Source as an io.Reader for tests. It never waits for what is there: each Read is a Serve.
type feed struct{ *Source }

func (f feed) Read(p []byte) (n int, err error) {
	ended := f.Serve(func() Then {
		if n, err = f.Receive(p); err == syscall.EAGAIN {
			err = nil
			return Wait
		}
		return End
	})
	return n, cmp.Or(ended, err)
}

func TestReceiveAndTryWrite(t *testing.T) {
	near, far := pair(t)
	w := NewWriter(near)
	far.SetReadDeadline(time.Now().Add(10 * time.Second))
	go func() {
		time.Sleep(20 * time.Millisecond) // the reader waits
		if n, err := w.TryWrite([]byte("hello")); n != 5 || err != nil {
			t.Error(n, err)
		}
		near.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(feed{NewSource(far)}); string(got) != "hello" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
}

// TestWaitAfterAShortRead: a step that waits after a read that did not fill its buffer comes back for
// what arrives afterwards, even while it is still running.
func TestWaitAfterAShortRead(t *testing.T) {
	if !ShortIsAll {
		t.Skip("not on this system")
	}
	near, far := pair(t)
	far.SetReadDeadline(time.Now().Add(20 * time.Second))
	const rounds = 5000
	s, p := NewSource(far), make([]byte, 16)
	acks := make(chan struct{}, 1)
	go func() {
		for range rounds {
			near.Write([]byte("1234")) // while the step before is on its way to wait
			<-acks
		}
	}()
	got, reads := 0, 0
	if err := s.Serve(func() Then {
		n, err := s.Receive(p)
		reads++
		if err == syscall.EAGAIN {
			return Wait
		}
		if err != nil {
			t.Error(err)
			return End
		}
		acks <- struct{}{}
		if got += n; got == 4*rounds {
			return End
		}
		return Wait
	}); err != nil || got != 4*rounds {
		t.Fatalf("%d bytes, %v", got, err)
	}
	if reads > rounds+rounds/2 {
		t.Errorf("%d reads for %d messages", reads, rounds)
	}
}

func TestOver(t *testing.T) {
	if !ShortIsAll {
		t.Skip("not on this system")
	}
	for _, reset := range []bool{false, true} {
		near, far := pair(t)
		s := NewSource(far)
		over := func(want bool) {
			t.Helper()
			for start := time.Now(); s.Over() != want; time.Sleep(time.Millisecond) {
				if time.Since(start) > 10*time.Second {
					t.Fatalf("reset %v: over is not %v", reset, want)
				}
			}
		}
		over(false)
		near.Write([]byte("x"))
		if reset {
			near.(*net.TCPConn).SetLinger(0)
			near.Close()
		} else {
			near.(*net.TCPConn).CloseWrite()
			time.Sleep(10 * time.Millisecond)
			if s.Over() {
				t.Error("over with a byte to read")
			}
		}
		if n, err := far.Read(make([]byte, 8)); n != 1 && !reset {
			t.Fatal(n, err)
		}
		over(true)
		far.Close()
		over(true)
	}
}

func TestDeadlineAndClose(t *testing.T) {
	near, far := pair(t)
	r := feed{NewSource(far)}
	far.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	far.SetReadDeadline(time.Time{})
	go func() {
		time.Sleep(10 * time.Millisecond)
		far.Close()
	}()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	w := NewWriter(near)
	var err error
	for try := 0; err == nil && try < 1000; try++ { // until the reset has come
		_, err = w.TryWrite([]byte("x"))
		time.Sleep(time.Millisecond)
	}
	if err == nil {
		t.Fatal("writes to a closed peer succeed")
	}
}

// A peer that reads nothing is no reason to wait.
func TestTryWriteNeverWaits(t *testing.T) {
	near, far := pair(t)
	w := NewWriter(near)
	whole := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	n, err := w.TryWrite(whole)
	if err != nil || n == 0 || n == len(whole) {
		t.Fatalf("%d of %d bytes, %v", n, len(whole), err)
	}
	for {
		m, err := w.TryWrite(whole[n:])
		if err != nil {
			t.Fatal(err)
		}
		if m == 0 {
			break
		}
		n += m
	}
	near.Close()
	if got, err := io.ReadAll(feed{NewSource(far)}); err != nil || !bytes.Equal(got, whole[:n]) {
		t.Fatalf("%d bytes written, %d read, %v", n, len(got), err)
	}
}

func TestNotTheKernels(t *testing.T) {
	near, _ := net.Pipe()
	if NewSource(near) != nil || NewWriter(near) != nil {
		t.Fatal("a pipe has no descriptor")
	}
}

func TestWriteAt(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := f.Fd()
	for _, size := range []int{1, 4096, 100_000} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if n, err := WriteAt(f, fd, want, 10); n != size || err != nil {
			t.Fatal(n, err)
		}
		got := make([]byte, size)
		if _, err := f.ReadAt(got, 10); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	var path *os.PathError
	if _, err := WriteAt(full, full.Fd(), []byte("x"), 0); !errors.As(err, &path) {
		t.Fatal(err)
	}
}

func TestNoAllocations(t *testing.T) {
	near, far := pair(t)
	s, w, p := NewSource(far), NewWriter(near), make([]byte, 64)
	var n int
	var err error
	step := func() Then {
		if n, err = s.Receive(p); err == syscall.EAGAIN {
			return Wait
		}
		return End
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, err := w.TryWrite(p); err != nil {
			t.Fatal(err)
		}
		if ended := s.Serve(step); ended != nil || err != nil || n != len(p) {
			t.Fatal(ended, err, n)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
