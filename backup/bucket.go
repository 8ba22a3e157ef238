package backup

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// Sizes of what is written, and limits of what is read, in bytes.
const (
	packSize  = 4 << 20 // one PUT, so that nothing is left behind by an upload that stops, and is soon done with: sums, sending and receiving are work at a stretch
	minBuffer = 5 << 20 // the least that S3 takes for a part
	frameSize = 1 << 20
	maxPack   = 1 << 31
	maxRaw    = 1 << 30
)

const (
	packsDir     = "packs/"
	snapshotsDir = "snapshots/"
)

func packKey(id PackID) string           { return packsDir + id.String()[:2] + "/" + id.String() + ".kp" }
func beginKey(snapshot string) string    { return snapshotsDir + snapshot + "/BEGIN" }
func manifestKey(snapshot string) string { return snapshotsDir + snapshot + "/MANIFEST" }
func partsDir(snapshot string) string    { return snapshotsDir + snapshot + "/parts/" }

// tries is how often a call to the bucket is made before its error is told; the waits between double from firstWait.
const (
	tries     = 6
	firstWait = 100 * time.Millisecond
)

// final tells errors that another try does not change.
func final(err error) bool {
	switch gcerrors.Code(err) {
	case gcerrors.NotFound, gcerrors.FailedPrecondition, gcerrors.InvalidArgument, gcerrors.PermissionDenied, gcerrors.Unimplemented, gcerrors.Canceled:
		return true
	}
	return errors.Is(err, ErrDamaged)
}

// retry calls f until it does well, its error is final, or it has been tried often enough.
func retry(ctx context.Context, f func() error) (err error) {
	wait := firstWait
	for try := range tries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w, after: %w", ctx.Err(), err)
			case <-time.After(wait):
			}
			wait *= 2
		}
		if err = f(); err == nil || final(err) || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("backup: given up after %d tries: %w", tries, err)
}

// put writes an object; fresh: only if there is none of that name, and else the error is gcerrors.FailedPrecondition. A
// try whose answer was lost may have written it: so a fresh one that is there already with this content is no error.
func put(ctx context.Context, b *Bucket, key string, content []byte, fresh bool) error {
	// One request an object, whatever its size, and no larger buffer for it.
	opts := &blob.WriterOptions{ContentType: "application/octet-stream", IfNotExist: fresh, BufferSize: max(minBuffer, len(content)+1)}
	err := retry(ctx, func() error {
		if err := b.Up.wait(ctx, int64(len(content))); err != nil {
			return err
		}
		if b.As(new(dirBucket)) {
			return b.Upload(ctx, key, bytes.NewReader(content), opts) // without MD5 sums, which nobody would look at
		}
		return b.WriteAll(ctx, key, content, opts)
	})
	if fresh && gcerrors.Code(err) == gcerrors.FailedPrecondition {
		if there, err := get(ctx, b, key); err == nil && string(there) == string(content) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("backup: write %s: %w", key, err)
	}
	return nil
}

// get reads a whole object.
func get(ctx context.Context, b *Bucket, key string) (content []byte, err error) {
	err = retry(ctx, func() error {
		if content, err = b.ReadAll(ctx, key); err != nil {
			return err
		}
		return b.Down.wait(ctx, int64(len(content)))
	})
	if err != nil {
		return nil, fmt.Errorf("backup: read %s: %w", key, err)
	}
	return content, nil
}

// getRange reads a part of an object. What is too short is ErrDamaged.
func getRange(ctx context.Context, b *Bucket, key string, offset, length int64) (content []byte, err error) {
	if err := b.Down.wait(ctx, length); err != nil {
		return nil, err
	}
	err = retry(ctx, func() error {
		r, err := b.NewRangeReader(ctx, key, offset, length, nil)
		if err != nil && !final(err) {
			return tooShort(ctx, b, key, offset+length, err) // some servers refuse what begins behind the end
		}
		if err != nil {
			return err
		}
		defer r.Close()
		content, err = io.ReadAll(r)
		if err == nil && int64(len(content)) != length {
			// A connection that ended early is told by few servers.
			return tooShort(ctx, b, key, offset+length, fmt.Errorf("%d bytes instead of %d", len(content), length))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("backup: read %s: %w", key, err)
	}
	return content, nil
}

// tooShort is ErrDamaged if an object ends before end, and so another try would not help; else err.
func tooShort(ctx context.Context, b *Bucket, key string, end int64, err error) error {
	if a, failed := b.Attributes(ctx, key); failed == nil && a.Size < end {
		return fmt.Errorf("%w: it has %d bytes, not %d: %w", ErrDamaged, a.Size, end, err)
	}
	return err
}

// document reads and decodes one of the JSON objects.
func document(ctx context.Context, b *Bucket, key string, v any) error {
	content, err := get(ctx, b, key)
	if err != nil {
		return err
	}
	if err := unseal(content, v); err != nil {
		return fmt.Errorf("backup: %s: %w", key, err)
	}
	return nil
}

// list calls f with the names below dir, and with the "directories" there if delimited.
func list(ctx context.Context, b *Bucket, dir string, delimited bool, f func(o *blob.ListObject) error) error {
	opts := &blob.ListOptions{Prefix: dir}
	if delimited {
		opts.Delimiter = "/"
	}
	it := b.List(opts)
	for {
		var o *blob.ListObject
		err := retry(ctx, func() (err error) {
			if o, err = it.Next(ctx); errors.Is(err, io.EOF) {
				o, err = nil, nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("backup: list %s: %w", dir, err)
		}
		if o == nil {
			return nil
		}
		if err := f(o); err != nil {
			return err
		}
	}
}

// missing tells whether err means that there is no such object.
func missing(err error) bool { return gcerrors.Code(err) == gcerrors.NotFound }

// packer gathers frames into packs, in the order in which they come; it compresses some of them, and writes one pack, beside what else is done. Not
// safe for concurrent use.
type packer struct {
	bucket  *Bucket
	tag     string                           // makes each pack another: prune may be deleting one with the same records
	giveWay func(ctx context.Context, n int) // see Options.GiveWay; nil: none
	number  int
	zips    chan *zstd.Encoder
	jobs    []*job // the oldest first
	spare   [][]byte
	buf     []byte
	open    []*Ref           // in buf
	sizes   map[PackID]int64 // of those that refs name
	bytes   int64            // written, in all
	sent    *pack            // on its way; nil: there is none
	free    []byte           // for the next but one
	failed  error            // of a pack that was not written: for good
}

// pack is one that is being written.
type pack struct {
	content []byte
	refs    []*Ref      // into it; nil: they have been told its name
	name    chan PackID // comes first, since it takes no disk
	done    chan error
}

// ahead is how many frames may wait for their compression, so that it goes on while records are read, and the other way round.
const ahead = 8

// job is a frame that is being compressed, until done is closed.
type job struct {
	ref        *Ref
	raw, frame []byte
	sum        Sum
	done       chan struct{}
}

// stretch is how many bytes are read or compressed at a stretch. More would take the processor for longer than a get does: on a machine of one or two, nobody even
// looks meanwhile whether there are requests.
const stretch = 32 << 10

func newPacker(b *Bucket, giveWay func(context.Context, int), tag string) (*packer, error) {
	w := &packer{bucket: b, giveWay: giveWay, tag: tag, zips: make(chan *zstd.Encoder, max(1, runtime.GOMAXPROCS(0)/2)), sizes: map[PackID]int64{}} // clients want the other processors
	for range cap(w.zips) {
		zip, err := zstd.NewWriter(nil,
			zstd.WithEncoderConcurrency(1), // Write works itself
			zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(frameSize),
			zstd.WithEncoderCRC(false)) // frames have sums
		if err != nil {
			return nil, err
		}
		w.zips <- zip
	}
	return w, nil
}

// buffer returns an empty one, of those that were used before.
func (w *packer) buffer() []byte {
	if n := len(w.spare); n > 0 {
		b := w.spare[n-1]
		w.spare = w.spare[:n-1]
		return b[:0]
	}
	return make([]byte, 0, frameSize)
}

// add compresses raw, which is the packer's from then on, into a frame. ref is filled in, at the latest by flush.
func (w *packer) add(ctx context.Context, raw []byte, ref *Ref) error {
	j := &job{ref: ref, raw: raw, frame: w.buffer(), done: make(chan struct{})}
	w.jobs = append(w.jobs, j)
	go func() {
		defer close(j.done)
		j.frame = w.compress(ctx, j.raw, j.frame)
		if key := w.bucket.Key; key != nil {
			j.frame = key.encrypt(nil, j.frame)
		}
		j.sum = sumOf(j.frame)
	}()
	return w.settle(ctx, ahead)
}

// compress appends raw, compressed, to frame.
func (w *packer) compress(ctx context.Context, raw, frame []byte) []byte {
	zip := <-w.zips
	defer func() { w.zips <- zip }()
	out := bytes.NewBuffer(frame)
	zip.ResetContentSize(out, int64(len(raw)))
	for len(raw) > 0 {
		n := min(stretch, len(raw))
		if w.giveWay != nil {
			w.giveWay(ctx, n)
		}
		_, _ = zip.Write(raw[:n]) // into memory
		raw = raw[n:]
	}
	_ = zip.Close()
	return out.Bytes()
}

// settle puts frames into the pack until no more than left are being compressed.
func (w *packer) settle(ctx context.Context, left int) error {
	for len(w.jobs) > left {
		j := w.jobs[0]
		<-j.done
		if len(w.open) > 0 && len(w.buf)+len(j.frame) > packSize {
			if err := w.write(ctx); err != nil {
				return err
			}
		}
		if len(w.open) == 0 {
			w.number++
			if w.buf == nil {
				w.buf = *packs.Get().(*[]byte)
			}
			w.buf = fmt.Appendf(w.buf[:0], "kai pack %d %s %d\n", Format, w.tag, w.number)
		}
		*j.ref = Ref{Offset: int64(len(w.buf)), Length: int64(len(j.frame)), Raw: int64(len(j.raw)), Sum: j.sum}
		w.buf, w.open = append(w.buf, j.frame...), append(w.open, j.ref)
		w.jobs = w.jobs[1:]
		for _, b := range [][]byte{j.raw, j.frame} {
			if cap(b) <= 2*frameSize && len(w.spare) < 2*ahead {
				w.spare = append(w.spare, b)
			}
		}
	}
	return nil
}

// flush writes all that was added, and returns when it is written.
func (w *packer) flush(ctx context.Context) error {
	if err := w.begin(ctx); err != nil {
		return err
	}
	return w.written()
}

// begin begins to write all that was added, and fills in the refs: they hold once written says so.
func (w *packer) begin(ctx context.Context) error {
	if err := w.settle(ctx, 0); err != nil {
		return err
	}
	if len(w.open) > 0 {
		if err := w.write(ctx); err != nil {
			return err
		}
	}
	w.name()
	return nil
}

// close gives up what was not flushed, and ends what the packer holds.
func (w *packer) close() {
	_ = w.written() // nothing is on its way any more, or somebody has heard of another error
	for _, b := range [][]byte{w.buf, w.free} {
		if b != nil {
			packs.Put(&b)
		}
	}
}

// packs are buffers for packs.
var packs = sync.Pool{New: func() any { b := make([]byte, 0, packSize+frameSize); return &b }}

// write begins to write the pack that is open, and not empty, once the one before it is written.
func (w *packer) write(ctx context.Context) error {
	if err := w.written(); err != nil {
		return err
	}
	p := &pack{content: w.buf, refs: w.open, name: make(chan PackID, 1), done: make(chan error, 1)}
	w.sent, w.buf, w.open, w.free = p, w.free, nil, nil
	go func() {
		id := PackID(sha256.Sum256(p.content))
		p.name <- id
		p.done <- put(ctx, w.bucket, packKey(id), p.content, false)
	}()
	return nil
}

// name fills in the refs into the pack on its way.
func (w *packer) name() {
	p := w.sent
	if p == nil || p.refs == nil {
		return
	}
	id := <-p.name
	for _, ref := range p.refs {
		ref.Pack = id
	}
	p.refs, w.sizes[id] = nil, int64(len(p.content))
}

// written waits for the pack that is on its way. After an error everything else fails, too: there are refs into
// what is not there.
func (w *packer) written() error {
	if w.sent == nil {
		return w.failed
	}
	w.failed = <-w.sent.done
	if w.failed == nil {
		w.name()
		w.bytes += int64(len(w.sent.content))
	}
	w.sent, w.free = nil, w.sent.content
	return w.failed
}

// kept waits until all packs that refs name are written.
func (w *packer) kept() error {
	if w.sent != nil && w.sent.refs != nil {
		return w.failed
	}
	return w.written()
}

var unzip, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxRaw))

// open checks a frame and returns what it holds.
func (b *Bucket) open(f Ref, frame []byte) ([]byte, error) {
	if sumOf(frame) != f.Sum {
		return nil, fmt.Errorf("%w frame at %d of pack %s: its checksum does not match", ErrDamaged, f.Offset, f.Pack)
	}
	frame, err := b.Key.decrypt(frame)
	if err != nil {
		return nil, fmt.Errorf("frame at %d of pack %s: %w", f.Offset, f.Pack, err)
	}
	raw, err := unzip.DecodeAll(frame, make([]byte, 0, min(f.Raw, frameSize*2)))
	if err != nil {
		return nil, fmt.Errorf("%w frame at %d of pack %s: %w", ErrDamaged, f.Offset, f.Pack, err)
	}
	if int64(len(raw)) != f.Raw {
		return nil, fmt.Errorf("%w frame at %d of pack %s: %d bytes instead of %d", ErrDamaged, f.Offset, f.Pack, len(raw), f.Raw)
	}
	return raw, nil
}

// fetchSize bounds how much is fetched at once.
const fetchSize = 4 << 20

// runs groups frames that come in one read each, since they lie close together: numbers of refs.
func runs(refs []Ref) (all [][]int) {
	order := make([]int, len(refs))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		a, b := refs[i], refs[j]
		return cmp.Or(slices.Compare(a.Pack[:], b.Pack[:]), cmp.Compare(a.Offset, b.Offset))
	})
	for len(order) > 0 {
		first, k := refs[order[0]], 1
		end := first.Offset + first.Length
		for ; k < len(order); k++ {
			f := refs[order[k]]
			if f.Pack != first.Pack || f.Offset > end+fetchSize/16 || f.Offset+f.Length-first.Offset > fetchSize {
				break
			}
			end = max(end, f.Offset+f.Length)
		}
		all = append(all, order[:k])
		order = order[k:]
	}
	return all
}

// fetch reads a run of refs: the frames as they are stored, and how many bytes were read.
func fetch(ctx context.Context, b *Bucket, refs []Ref, run []int) (frames [][]byte, n int64, err error) {
	first, end := refs[run[0]], int64(0)
	for _, i := range run {
		end = max(end, refs[i].Offset+refs[i].Length)
	}
	content, err := getRange(ctx, b, packKey(first.Pack), first.Offset, end-first.Offset)
	if err != nil {
		return nil, 0, err
	}
	for _, i := range run {
		frames = append(frames, content[refs[i].Offset-first.Offset:][:refs[i].Length])
	}
	return frames, int64(len(content)), nil
}

// snapshotOf takes the snapshot's id out of the name of a directory.
func snapshotOf(key string) string {
	return strings.TrimSuffix(strings.TrimPrefix(key, snapshotsDir), "/")
}
