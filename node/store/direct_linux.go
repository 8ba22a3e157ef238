package store

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"kai/node/rawio"
)

// direct writes durably past the page cache, one file after another. What it writes is whole blocks:
// it remembers the last one, which the next write goes on with.
type direct struct {
	off  atomic.Bool // the file system refuses such writes
	mu   sync.Mutex
	buf  []byte  // aligned to block
	file *osFile // whose block is at the beginning of buf; nil: nobody's
	at   int64   // offset of that block
	used int     // content in it
}

const (
	// block is what offsets, lengths and addresses must be multiples of; no file system in use asks for more.
	block = 4096
	// maxDirect is the longest write: the page cache is as good for longer ones, and needs no buffer.
	maxDirect = 256 << 10
)

// open returns a second descriptor of the file of that name, nil if there can be none.
func (d *direct) open(name string) *os.File {
	if d.off.Load() {
		return nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil
	}
	return f
}

// write writes p at off of f, as File.WriteSync. When it cannot, the error wraps errors.ErrUnsupported,
// and the write is still to be done.
func (d *direct) write(f *osFile, p []byte, off int64) error {
	if f.direct == nil || d.off.Load() || len(p) > maxDirect || (off+int64(len(p))+block-1)&^(block-1) > f.size {
		d.mu.Lock()
		d.file = nil
		d.mu.Unlock()
		return errors.ErrUnsupported
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file != f || off != d.at+int64(d.used) {
		if err := d.begin(f, off); err != nil {
			return err
		}
	}
	d.used += copy(d.buf[d.used:], p)
	end := (d.used + block - 1) &^ (block - 1)
	clear(d.buf[d.used:end])
	if err := rawio.WriteSync(f.directFd, d.buf[:end], d.at); err != nil {
		d.file = nil
		if errors.Is(err, errors.ErrUnsupported) {
			d.off.Store(!errors.Is(err, unix.EAGAIN))
			return err
		}
		return &os.PathError{Op: "write durably", Path: f.Name(), Err: err}
	}
	done := d.used &^ (block - 1)
	d.used = copy(d.buf, d.buf[done:d.used])
	d.at += int64(done)
	return nil
}

// begin makes the block of off in f the one to go on with.
func (d *direct) begin(f *osFile, off int64) error {
	if d.buf == nil {
		b := make([]byte, maxDirect+3*block)
		d.buf = b[-uintptr(unsafe.Pointer(&b[0]))%block:][:maxDirect+2*block]
	}
	d.file, d.at = nil, off&^(block-1)
	d.used = int(off - d.at)
	if n, err := f.ReadAt(d.buf[:d.used], d.at); n < d.used {
		return err
	}
	d.file = f
	return nil
}

// probe finds out whether files in dir can be written so.
func (d *direct) probe(dir string) {
	name := dir + "/probe"
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		d.off.Store(true)
		return
	}
	p := &osFile{File: f, size: block, direct: d.open(name)}
	if p.direct != nil {
		p.directFd = p.direct.Fd()
	}
	if d.write(p, []byte("kai"), 0) != nil {
		d.off.Store(true)
	}
	d.file = nil
	_ = errors.Join(p.Close(), os.Remove(name))
}
