package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// OpenDir opens a directory as a bucket, whose objects are its files. What is written is on its disk, and appears as a whole; of many
// processes, and machines that mount it, which write what must not be there, one does. The file system must
// have hard links. create: the directory is made if there is none.
func OpenDir(dir string, create bool) (*blob.Bucket, error) {
	if create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is no directory", dir)
	}
	return blob.NewBucket(dirBucket{filepath.Clean(dir)}), nil
}

// dirBucket is why gocloud's fileblob is not used: that never syncs, and of two that write what must not be there, both may, even in one process.
type dirBucket struct{ root string }

const (
	// hidden begins the names of files that are not objects (yet).
	hidden = ".kai-"
	// staleAfter is when such a file is what a writer left that was killed: whoever lists it removes it.
	staleAfter = 24 * time.Hour
)

var errName = errors.New("not a name of an object in a directory")

// path is the file of an object. Names that a path could not hold are refused: Kai uses none.
func (d dirBucket) path(key string) (string, error) {
	if !fs.ValidPath(key) || key == "." || strings.ContainsAny(key, "\\\x00") || strings.HasPrefix(key, hidden) || strings.Contains(key, "/"+hidden) {
		return "", fmt.Errorf("%w: %q", errName, key)
	}
	return filepath.Join(d.root, filepath.FromSlash(key)), nil
}

// ErrorCode implements driver.Bucket.
func (dirBucket) ErrorCode(err error) gcerrors.ErrorCode {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return gcerrors.NotFound
	case errors.Is(err, fs.ErrExist):
		return gcerrors.FailedPrecondition
	case errors.Is(err, fs.ErrPermission):
		return gcerrors.PermissionDenied
	case errors.Is(err, errName):
		return gcerrors.InvalidArgument
	case errors.Is(err, errors.ErrUnsupported):
		return gcerrors.Unimplemented
	case errors.Is(err, context.Canceled):
		return gcerrors.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return gcerrors.DeadlineExceeded
	}
	return gcerrors.Unknown
}

// As implements driver.Bucket.
func (d dirBucket) As(i any) bool {
	own, ok := i.(*dirBucket)
	if ok {
		*own = d
	}
	return ok
}

// ErrorAs implements driver.Bucket.
func (dirBucket) ErrorAs(error, any) bool { return false }

// Close implements driver.Bucket.
func (dirBucket) Close() error { return nil }

// Attributes implements driver.Bucket.
func (d dirBucket) Attributes(_ context.Context, key string) (*driver.Attributes, error) {
	path, err := d.path(key)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fs.ErrNotExist
	}
	return &driver.Attributes{Size: info.Size(), ModTime: info.ModTime()}, nil
}

// ListPaged implements driver.Bucket: everything is one page.
func (d dirBucket) ListPaged(ctx context.Context, o *driver.ListOptions) (*driver.ListPage, error) {
	page := &driver.ListPage{}
	dir := o.Prefix[:strings.LastIndex(o.Prefix, "/")+1] // what lies outside has another prefix
	if dir != "" {
		if _, err := d.path(strings.TrimSuffix(dir, "/")); err != nil {
			return nil, err
		}
	}
	if o.Delimiter != "" && o.Delimiter != "/" {
		return nil, fmt.Errorf("delimiter %q: %w", o.Delimiter, errors.ErrUnsupported)
	}
	if err := d.list(ctx, dir, o, page); err != nil {
		return nil, err
	}
	slices.SortFunc(page.Objects, func(a, b *driver.ListObject) int { return strings.Compare(a.Key, b.Key) })
	return page, nil
}

// list adds what lies in dir, which ends in a slash, or is empty.
func (d dirBucket) list(ctx context.Context, dir string, o *driver.ListOptions, page *driver.ListPage) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(d.root, filepath.FromSlash(dir)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing there, or removed meanwhile
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		key := dir + e.Name()
		if strings.HasPrefix(e.Name(), hidden) {
			if info, err := e.Info(); err == nil && !e.IsDir() && time.Since(info.ModTime()) > staleAfter {
				_ = os.Remove(filepath.Join(d.root, filepath.FromSlash(key)))
			}
			continue
		}
		if e.IsDir() {
			switch key += "/"; {
			case !strings.HasPrefix(key, o.Prefix) && !strings.HasPrefix(o.Prefix, key):
			case o.Delimiter == "":
				if err := d.list(ctx, key, o, page); err != nil {
					return err
				}
			case d.holds(key):
				page.Objects = append(page.Objects, &driver.ListObject{Key: key, IsDir: true})
			}
			continue
		}
		if !strings.HasPrefix(key, o.Prefix) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		page.Objects = append(page.Objects, &driver.ListObject{Key: key, Size: info.Size(), ModTime: info.ModTime()})
	}
	return nil
}

// holds tells whether any object lies in dir, or in a directory there.
func (d dirBucket) holds(dir string) bool {
	entries, _ := os.ReadDir(filepath.Join(d.root, filepath.FromSlash(dir)))
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return !strings.HasPrefix(e.Name(), hidden) && (!e.IsDir() || d.holds(dir+e.Name()+"/"))
	})
}

type dirReader struct {
	io.Reader
	*os.File
	attributes driver.ReaderAttributes
}

func (r *dirReader) Read(b []byte) (int, error)           { return r.Reader.Read(b) }
func (r *dirReader) Attributes() *driver.ReaderAttributes { return &r.attributes }
func (r *dirReader) As(any) bool                          { return false }

// NewRangeReader implements driver.Bucket.
func (d dirBucket) NewRangeReader(_ context.Context, key string, offset, length int64, _ *driver.ReaderOptions) (driver.Reader, error) {
	path, err := d.path(key)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err == nil {
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	r := &dirReader{Reader: f, File: f, attributes: driver.ReaderAttributes{Size: info.Size(), ModTime: info.ModTime()}}
	if length >= 0 {
		r.Reader = io.LimitReader(f, length)
	}
	return r, nil
}

// dirWriter holds what is written until Close: Kai's objects are small, or in memory anyway.
type dirWriter struct {
	bytes.Buffer
	whole *bytes.Reader // of Upload, instead
	ctx   context.Context
	d     dirBucket
	path  string
	fresh bool
}

// NewTypedWriter implements driver.Bucket.
func (d dirBucket) NewTypedWriter(ctx context.Context, key, _ string, o *driver.WriterOptions) (driver.Writer, error) {
	path, err := d.path(key)
	if err != nil {
		return nil, err
	}
	return &dirWriter{ctx: ctx, d: d, path: path, fresh: o.IfNotExist}, nil
}

// Upload implements driver.Uploader: what is in memory is written from there.
func (w *dirWriter) Upload(r io.Reader) (err error) {
	if whole, ok := r.(*bytes.Reader); ok {
		w.whole = whole
		return nil
	}
	_, err = w.ReadFrom(r)
	return err
}

// Close writes the object.
func (w *dirWriter) Close() error {
	for try := 0; ; try++ {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		// Who deletes the last object of a directory takes that away, perhaps between two steps here.
		if err := w.write(); !errors.Is(err, fs.ErrNotExist) || try == 100 {
			return err
		}
	}
}

func (w *dirWriter) write() (err error) {
	dir := filepath.Dir(w.path)
	if err := w.d.makeDir(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, hidden)
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name()) // there is none any more after a rename
	}()
	content := w.whole
	if content == nil {
		content = bytes.NewReader(w.Bytes())
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := content.WriteTo(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if w.fresh {
		err = os.Link(f.Name(), w.path)
	} else {
		err = os.Rename(f.Name(), w.path)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// makeDir makes a directory, and those above it as far as the root, on disk.
func (d dirBucket) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil || dir == d.root || len(dir) <= len(d.root) {
		return err
	}
	if err := d.makeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Copy implements driver.Bucket.
func (dirBucket) Copy(context.Context, string, string, *driver.CopyOptions) error {
	return errors.ErrUnsupported
}

// Delete implements driver.Bucket. Directories that it leaves empty go, too.
func (d dirBucket) Delete(_ context.Context, key string, _ *driver.DeleteOptions) error {
	path, err := d.path(key)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return errors.Join(err, fs.ErrNotExist)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	for dir := filepath.Dir(path); len(dir) > len(d.root); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil { // there is something in it
			break
		}
	}
	return nil
}

// SignedURL implements driver.Bucket.
func (dirBucket) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", errors.ErrUnsupported
}
