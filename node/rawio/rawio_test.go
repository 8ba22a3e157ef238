package rawio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
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

func TestReadAndTryWrite(t *testing.T) {
	near, far := pair(t)
	r, w := NewReader(far), NewWriter(near)
	far.SetReadDeadline(time.Now().Add(10 * time.Second))
	go func() {
		time.Sleep(20 * time.Millisecond) // the reader waits
		if n, err := w.TryWrite([]byte("hello")); n != 5 || err != nil {
			t.Error(n, err)
		}
		near.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(r); string(got) != "hello" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
}

func TestDeadlineAndClose(t *testing.T) {
	near, far := pair(t)
	r := NewReader(far)
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
	if got, err := io.ReadAll(NewReader(far)); err != nil || !bytes.Equal(got, whole[:n]) {
		t.Fatalf("%d bytes written, %d read, %v", n, len(got), err)
	}
}

func TestNotTheKernels(t *testing.T) {
	near, _ := net.Pipe()
	if NewReader(near) != io.Reader(near) || NewWriter(near) != nil {
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
	r, w, p := NewReader(far), NewWriter(near), make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := w.TryWrite(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, p); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
