package store

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"
)

// MemDisk is a Disk in memory that can crash, for tests and simulations. It never sleeps with its
// lock held: in a synctest bubble, time stands still while someone waits for a lock.
type MemDisk struct {
	mu      sync.Mutex
	files   map[string]*memFile
	removed map[string]*memFile // may be back after a crash
	dead    bool
	used    int64
	opts    MemDiskOptions
	faults  MemDiskFaults
}

// MemDiskOptions are the disk's nature.
type MemDiskOptions struct {
	// Capacity in bytes; 0: no limit.
	Capacity int64
	// SyncLatency is how long Sync takes; nil: no time. Called by many goroutines.
	SyncLatency func() time.Duration
}

// MemDiskFaults are errors that calls return from now on; nil: none.
type MemDiskFaults struct{ Write, Sync, Create, Read error }

type memFile struct {
	disk    *MemDisk
	data    []byte
	durable []byte
	// dirty is the stretch of data written since the last Sync.
	from, to int
}

// NewMemDisk returns an empty disk.
func NewMemDisk(opts MemDiskOptions) *MemDisk {
	return &MemDisk{files: map[string]*memFile{}, removed: map[string]*memFile{}, opts: opts}
}

// SetFaults replaces the faults.
func (d *MemDisk) SetFaults(f MemDiskFaults) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = f
}

// SetCapacity replaces the capacity.
func (d *MemDisk) SetCapacity(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opts.Capacity = bytes
}

const sector = 512

// Crash ends d, whose calls fail from now on, and returns the disk that is found afterwards: what was
// synced, and, if rng is given, some of what was not: of each file either a torn beginning of it or
// any of its sectors; removed files may be back. Faults are not inherited.
func (d *MemDisk) Crash(rng *rand.Rand) *MemDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	next := NewMemDisk(d.opts)
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		next.put(name, d.files[name].survive(rng))
	}
	for _, name := range slices.Sorted(maps.Keys(d.removed)) {
		if rng != nil && next.files[name] == nil && rng.IntN(2) == 0 {
			next.put(name, slices.Clone(d.removed[name].durable))
		}
	}
	return next
}

func (d *MemDisk) put(name string, data []byte) {
	d.used += int64(len(data))
	d.files[name] = &memFile{disk: d, data: data, durable: slices.Clone(data)}
}

// survive returns the content after a crash.
func (f *memFile) survive(rng *rand.Rand) []byte {
	after := slices.Clone(f.durable)
	if rng == nil || f.from >= f.to {
		return after
	}
	if rng.IntN(2) == 0 {
		n := f.from + rng.IntN(f.to-f.from+1)
		copy(after[f.from:n], f.data[f.from:n])
		return after
	}
	for at := f.from - f.from%sector; at < f.to; at += sector {
		if end := min(at+sector, len(after)); rng.IntN(2) == 0 {
			copy(after[at:end], f.data[at:end])
		}
	}
	return after
}

// Corrupt applies change to the content of a file, as a fault of the medium would.
func (d *MemDisk) Corrupt(name string, change func(data []byte)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil {
		return notExist("corrupt", name)
	}
	change(f.data)
	copy(f.durable, f.data)
	return nil
}

// Clone returns an independent copy of the disk as it is, faults excepted.
func (d *MemDisk) Clone() *MemDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := NewMemDisk(d.opts)
	for name, f := range d.files {
		next.put(name, slices.Clone(f.data))
		copy(next.files[name].durable, f.durable)
	}
	return next
}

func notExist(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// check returns why a call must fail. The caller holds mu.
func (d *MemDisk) check(fault error) error {
	if d.dead {
		return errCrashed
	}
	return fault
}

// Create implements Disk.
func (d *MemDisk) Create(name string, size int64) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(d.faults.Create); err != nil {
		return nil, err
	}
	if d.files[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if d.opts.Capacity > 0 && d.used+size > d.opts.Capacity {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
	}
	d.put(name, make([]byte, size))
	delete(d.removed, name)
	return d.files[name], nil
}

// Open implements Disk.
func (d *MemDisk) Open(name string) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(nil); err != nil {
		return nil, err
	}
	if d.files[name] == nil {
		return nil, notExist("open", name)
	}
	return d.files[name], nil
}

// List implements Disk.
func (d *MemDisk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.files)), d.check(nil)
}

// Rename implements Disk.
func (d *MemDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(d.faults.Write); err != nil {
		return err
	}
	if d.files[from] == nil {
		return notExist("rename", from)
	}
	d.files[to] = d.files[from]
	delete(d.files, from)
	delete(d.removed, to)
	return nil
}

// Remove implements Disk.
func (d *MemDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(d.faults.Write); err != nil {
		return err
	}
	f := d.files[name]
	if f == nil {
		return notExist("remove", name)
	}
	delete(d.files, name)
	d.removed[name] = f
	d.used -= int64(len(f.data))
	return nil
}

// Free implements Disk.
func (d *MemDisk) Free() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opts.Capacity == 0 {
		return 1 << 62, d.check(nil)
	}
	return uint64(max(0, d.opts.Capacity-d.used)), d.check(nil)
}

// WriteAt implements File.
func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.check(f.disk.faults.Write); err != nil {
		return 0, err
	}
	if off+int64(len(b)) > int64(len(f.data)) {
		return 0, fmt.Errorf("store: simulated disk: write to %d beyond the file's %d bytes", off+int64(len(b)), len(f.data))
	}
	if f.from >= f.to {
		f.from, f.to = int(off), int(off)+len(b)
	}
	f.from, f.to = min(f.from, int(off)), max(f.to, int(off)+len(b))
	return copy(f.data[off:], b), nil
}

// ReadAt implements File.
func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.check(f.disk.faults.Read); err != nil {
		return 0, err
	}
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Sync implements File. What was written when it began is durable when it ends; in between, no
// promise is made.
func (f *memFile) Sync() error {
	f.disk.mu.Lock()
	latency := f.disk.opts.SyncLatency
	f.disk.mu.Unlock()
	if latency != nil {
		time.Sleep(latency())
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.check(f.disk.faults.Sync); err != nil {
		return err
	}
	copy(f.durable[f.from:f.to], f.data[f.from:f.to])
	f.from, f.to = 0, 0
	return nil
}

// WriteSync implements File: a crash before it ends may leave any part of p.
func (f *memFile) WriteSync(p []byte, off int64) error {
	if _, err := f.WriteAt(p, off); err != nil {
		return err
	}
	return f.Sync()
}

// Size implements File.
func (f *memFile) Size() (int64, error) { return int64(len(f.data)), nil }

// Close implements File.
func (f *memFile) Close() error { return nil }
