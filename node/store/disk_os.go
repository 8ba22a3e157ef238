package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"kai/node/rawio"
)

// OSDisk is a Disk in a directory of the file system.
type OSDisk struct {
	dir    string
	lock   *os.File
	direct direct
}

// OpenDisk takes the data directory dir for this process and opens the log directory in it,
// creating both. The error wraps ErrInUse when another process has it.
func OpenDisk(dir string) (*OSDisk, error) {
	d := &OSDisk{dir: filepath.Join(dir, "log")}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: create data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: lock data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(lock.Name())
		lock.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("store: lock data directory %s: %w", dir, err)
		}
		return nil, fmt.Errorf("%w: %s is held by process %s; stop it, or give this node a directory of its own",
			ErrInUse, dir, strings.TrimSpace(string(holder)))
	}
	// The process number is for people; the lock itself ends with the process, however it ends.
	if err := lock.Truncate(0); err == nil {
		fmt.Fprintln(lock, os.Getpid())
	}
	d.lock = lock
	d.direct.probe(dir)
	_ = syncDir(filepath.Dir(dir)) // for a directory just made; its parent may not be ours to open
	return d, syncDir(dir)
}

// Close gives the data directory free.
func (d *OSDisk) Close() error { return d.lock.Close() }

// Create implements Disk. It writes zeros rather than reserving space: a sync after overwriting
// written blocks costs a third of one that turns reserved blocks into written ones (DESIGN.md).
func (d *OSDisk) Create(name string, size int64) (File, error) {
	f, err := os.OpenFile(d.path(name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, min(size, 1<<20))
	for at := int64(0); at < size && err == nil; at += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
	}
	if err == nil {
		err = f.Sync() // the length too, which Sync of osFile leaves out
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return d.file(f, size), nil
}

// Open implements Disk.
func (d *OSDisk) Open(name string) (File, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d.file(f, st.Size()), nil
}

func (d *OSDisk) file(f *os.File, size int64) *osFile {
	file := &osFile{File: f, fd: f.Fd(), size: size, disk: d, direct: d.direct.open(f.Name())}
	if file.direct != nil {
		file.directFd = file.direct.Fd()
	}
	return file
}

// SyncsAside reports whether no thread waits in a File.WriteSync of d.
func (d *OSDisk) SyncsAside() bool { return !d.direct.off.Load() }

// List implements Disk.
func (d *OSDisk) List() ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Rename implements Disk.
func (d *OSDisk) Rename(from, to string) error {
	if err := os.Rename(d.path(from), d.path(to)); err != nil {
		return err
	}
	return syncDir(d.dir)
}

// Remove implements Disk.
func (d *OSDisk) Remove(name string) error { return os.Remove(d.path(name)) }

// Free implements Disk.
func (d *OSDisk) Free() (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: d.dir, Err: err}
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}

func (d *OSDisk) path(name string) string { return filepath.Join(d.dir, name) }

// osFile is a file of the file system, of a length that stays.
type osFile struct {
	*os.File
	fd       uintptr
	size     int64
	disk     *OSDisk
	direct   *os.File // the same, written past the page cache; nil if that cannot be
	directFd uintptr
}

// WriteAt implements File. The writes of small batches are too short to tell Go's scheduler.
func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	return rawio.WriteAt(f.File, f.fd, p, off)
}

// WriteSync implements File.
func (f *osFile) WriteSync(p []byte, off int64) error {
	err := f.disk.direct.write(f, p, off)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if _, err := f.WriteAt(p, off); err != nil {
		return err
	}
	return f.Sync()
}

func (f *osFile) Sync() error { return fdatasync(f.File) }

func (f *osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f *osFile) Close() error {
	if f.direct == nil {
		return f.File.Close()
	}
	return errors.Join(f.direct.Close(), f.File.Close())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
