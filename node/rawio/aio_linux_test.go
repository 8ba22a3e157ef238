package rawio

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"unsafe"
)

const block = 4096

func blocks(n int) []byte {
	b := make([]byte, (n+1)*block)
	return b[-uintptr(unsafe.Pointer(&b[0]))%block:][:n*block]
}

// unbuffered returns a file that is open past the page cache.
func unbuffered(t testing.TB) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_CREATE|os.O_RDWR|syscall.O_DIRECT, 0o600)
	if err != nil {
		t.Skipf("SKIPPED: the file system of the temporary directory has no O_DIRECT: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	if err := WriteSync(f.Fd(), blocks(1), 0); errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("SKIPPED: %v", err)
	}
	return f
}

// TestWriteSync has more writers than the queue is long, with and without somebody who looks.
func TestWriteSync(t *testing.T) {
	f := unbuffered(t)
	const writers, each = 2*queueLen + 3, 5
	stop, looked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(looked)
		for {
			select {
			case <-stop:
				return
			default:
				look()
			}
		}
	}()
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			p := blocks(2)
			for i := range each {
				copy(p, bytes.Repeat([]byte{byte(1 + w + i)}, len(p)))
				if err := WriteSync(f.Fd(), p, int64(w)*2*block); err != nil {
					t.Error(err)
				}
			}
			if w == 0 {
				close(stop)
			}
		})
	}
	all.Wait()
	<-looked
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for w := range writers {
		if want := bytes.Repeat([]byte{byte(w + each)}, 2*block); !bytes.Equal(got[w*2*block:][:2*block], want) {
			t.Errorf("writer %d: another content", w)
		}
	}
	if n := writing.Load(); n != 0 {
		t.Errorf("%d writes are still said to be on their way", n)
	}
}

func TestWriteSyncErrors(t *testing.T) {
	f := unbuffered(t)
	if err := WriteSync(f.Fd(), blocks(1)[:100], 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("part of a block: %v", err)
	}
	if err := WriteSync(f.Fd(), blocks(1), 7); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("between blocks: %v", err)
	}
	if err := WriteSync(f.Fd(), nil, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("nothing: %v", err)
	}
	only, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer only.Close()
	if err := WriteSync(only.Fd(), blocks(1), 0); err != syscall.EBADF {
		t.Errorf("a file open for reading: %v", err)
	}
	if n := writing.Load(); n != 0 {
		t.Errorf("%d writes are still said to be on their way", n)
	}
}

func BenchmarkWriteSync(b *testing.B) {
	f := unbuffered(b)
	p := blocks(1)
	b.ReportAllocs()
	for b.Loop() {
		if err := WriteSync(f.Fd(), p, 0); err != nil {
			b.Fatal(err)
		}
	}
}
