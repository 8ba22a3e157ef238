package backup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// faultBucket is a bucket in memory that fails as buckets do.
type faultBucket struct {
	mu      sync.Mutex
	objects map[string]object
	rng     *rand.Rand
	rate    int              // of 100 calls that fail, before they did anything
	lost    int              // of 100 writes that are done and reported as failed
	short   int              // of 100 reads that end early without an error
	slow    time.Duration    // longest time a call takes
	again   int              // of 100 writes that come a second time, up to a minute later: a copy of the request that was on its way
	never   string           // an object that cannot be written
	skewed  int              // of 100 calls that are refused because of the caller's clock
	age     time.Duration    // objects are this much older than they are
	before  func(key string) // called before a write; may panic with died
	writes  int
}

type object struct {
	content []byte
	at      time.Time
}

var (
	errThrottled = errors.New("503 slow down")
	errNone      = errors.New("404 not found")
	errThere     = errors.New("412 there is one")
	errSkewed    = errors.New("403 request time too skewed")
)

func newFaultBucket(seed uint64) (*faultBucket, *Bucket) {
	f := &faultBucket{objects: map[string]object{}, rng: rand.New(rand.NewPCG(seed, 1))}
	return f, &Bucket{Bucket: blob.NewBucket(f)}
}

// with runs f under the lock.
func (b *faultBucket) with(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *faultBucket) fails(rate int) bool { return b.rng.IntN(100) < rate }

// fault is what a call meets before it does anything. b.mu is held, but not while it is slow.
func (b *faultBucket) fault() error {
	if b.slow > 0 {
		d := time.Duration(b.rng.Int64N(int64(b.slow)))
		b.mu.Unlock()
		time.Sleep(d)
		b.mu.Lock()
	}
	switch {
	case b.fails(b.skewed):
		return errSkewed
	case b.fails(b.rate):
		return errThrottled
	}
	return nil
}

func (b *faultBucket) ErrorCode(err error) gcerrors.ErrorCode {
	switch {
	case errors.Is(err, errNone):
		return gcerrors.NotFound
	case errors.Is(err, errThere):
		return gcerrors.FailedPrecondition
	case errors.Is(err, errSkewed):
		return gcerrors.PermissionDenied
	case errors.Is(err, context.Canceled):
		return gcerrors.Canceled
	case errors.Is(err, errThrottled):
		return gcerrors.ResourceExhausted
	}
	return gcerrors.Unknown
}

func (b *faultBucket) As(any) bool             { return false }
func (b *faultBucket) ErrorAs(error, any) bool { return false }
func (b *faultBucket) Close() error            { return nil }

func (b *faultBucket) find(key string) (object, error) {
	if err := b.fault(); err != nil {
		return object{}, err
	}
	o, ok := b.objects[key]
	if !ok {
		return o, errNone
	}
	return o, nil
}

func (b *faultBucket) Attributes(_ context.Context, key string) (*driver.Attributes, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, err := b.find(key)
	return &driver.Attributes{Size: int64(len(o.content)), ModTime: o.at.Add(-b.age)}, err
}

func (b *faultBucket) ListPaged(_ context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fault(); err != nil {
		return nil, err
	}
	page := &driver.ListPage{}
	last := ""
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		rest, ok := strings.CutPrefix(key, opts.Prefix)
		if !ok {
			continue
		}
		if i := strings.Index(rest, "/"); opts.Delimiter != "" && i >= 0 {
			if dir := opts.Prefix + rest[:i+1]; dir != last {
				page.Objects = append(page.Objects, &driver.ListObject{Key: dir, IsDir: true})
				last = dir
			}
			continue
		}
		o := b.objects[key]
		page.Objects = append(page.Objects, &driver.ListObject{Key: key, Size: int64(len(o.content)), ModTime: o.at.Add(-b.age)})
	}
	return page, nil
}

type faultReader struct {
	io.Reader
	size int64
}

func (r *faultReader) Close() error { return nil }
func (r *faultReader) As(any) bool  { return false }
func (r *faultReader) Attributes() *driver.ReaderAttributes {
	return &driver.ReaderAttributes{Size: r.size}
}

func (b *faultBucket) NewRangeReader(_ context.Context, key string, offset, length int64, _ *driver.ReaderOptions) (driver.Reader, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, err := b.find(key)
	if err != nil {
		return nil, err
	}
	c := o.content[min(offset, int64(len(o.content))):]
	if length >= 0 {
		c = c[:min(length, int64(len(c)))]
	}
	if length >= 0 && b.fails(b.short) {
		c = c[:len(c)/2]
	}
	return &faultReader{bytes.NewReader(c), int64(len(o.content))}, nil
}

type faultWriter struct {
	bytes.Buffer
	b    *faultBucket
	key  string
	opts *driver.WriterOptions
	ctx  context.Context
}

func (b *faultBucket) NewTypedWriter(ctx context.Context, key, _ string, opts *driver.WriterOptions) (driver.Writer, error) {
	return &faultWriter{b: b, key: key, opts: opts, ctx: ctx}, nil
}

func (w *faultWriter) Close() error {
	if w.b.before != nil {
		w.b.before(w.key)
	}
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.key == w.b.never {
		return errThrottled
	}
	if err := w.b.fault(); err != nil {
		return err
	}
	if err := w.write(); err != nil {
		return err
	}
	if w.b.fails(w.b.again) {
		time.AfterFunc(time.Duration(w.b.rng.Int64N(int64(time.Minute))), func() {
			w.b.with(func() { _ = w.write() }) // nobody hears what came of it
		})
	}
	if w.b.fails(w.b.lost) {
		return errThrottled
	}
	return nil
}

// write does it. b.mu is held.
func (w *faultWriter) write() error {
	if _, there := w.b.objects[w.key]; there && w.opts.IfNotExist {
		return errThere
	}
	w.b.objects[w.key] = object{slices.Clone(w.Bytes()), time.Now()}
	w.b.writes++
	return nil
}

func (b *faultBucket) Copy(context.Context, string, string, *driver.CopyOptions) error {
	return errors.ErrUnsupported
}

func (b *faultBucket) Delete(ctx context.Context, key string, _ *driver.DeleteOptions) error {
	if b.before != nil {
		b.before(key)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := b.find(key); err != nil {
		return err
	}
	delete(b.objects, key)
	return nil
}

func (b *faultBucket) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", errors.ErrUnsupported
}
