package store

import (
	"sync"
)

// tail is the open end of the log: callers append entries to chunks in memory, in the place in the
// segment where the committer will write them.
type tail struct {
	s      *Store
	mu     sync.Mutex
	closed bool
	chunk  *chunk
	nextID uint32
	// The next entry goes to offset off of segment seg; spare follows it.
	seg   *segment
	off   int64
	spare *segment
	batch *batch // staged since the last swap
	other *batch // the one before, free once the committer is done with it
	// noMark is a mark not yet filled in.
	noMark entry
}

// batch is what one swap hands to the committer. Its first entry is a mark, to be filled in.
type batch struct {
	runs   []run
	items  []item
	bytes  int64
	meta   bool // holds a meta entry: must be synced
	purges int64
	mark   run // the place of the mark
}

// run is a stretch of a chunk that goes to one place in one segment.
type run struct {
	chunk    *chunk
	from, to int
	seg      *segment
	off      int64
}

// item is one staged entry.
type item struct {
	done interface{ Committed(error) }
	ref  ref
}

func (t *tail) init(s *Store) {
	t.s, t.batch, t.other = s, &batch{}, &batch{}
	t.noMark = entry{kind: kindMark, value: make([]byte, 16)}
}

// append stages e; first says that the committer must be woken.
func (t *tail) append(e *entry, done interface{ Committed(error) }) (first bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := e.size()
	first = len(t.batch.items) == 0
	if err := t.admit(e.kind, n, first); err != nil {
		return false, err
	}
	if first {
		t.placeMark()
	}
	r := t.place(e, n)
	b := t.batch
	b.items = append(b.items, item{done, r})
	b.bytes += int64(n)
	switch e.kind {
	case kindMeta:
		b.meta = true
	case kindPurge:
		b.purges++
	}
	return first, nil
}

// admit decides, before anything is changed, whether an entry of n bytes can be staged.
func (t *tail) admit(k kind, n int, first bool) error {
	if err := t.s.failed(); err != nil {
		return err
	}
	if t.closed {
		return ErrClosed
	}
	full := t.s.noSpace.Load()
	// Meta entries are few and the consistency of reads hangs on them (fences): they may use the reserve.
	// Purges give space back; but first they take some, so not all of the reserve is theirs.
	if full && k == kindRecord || k == kindPurge && t.s.scarce.Load() {
		return ErrFull
	}
	if !first && (t.batch.bytes+int64(n) > t.s.opts.QueueBytes || len(t.batch.items) >= t.s.opts.QueueEntries) {
		return ErrBusy
	}
	// The largest entry and a mark fit into an empty segment (Options.fill), so one spare is enough.
	if t.off+markLen+int64(n)+endLen > t.seg.size && t.spare == nil {
		signal(t.s.spareWake)
		if full {
			return ErrFull
		}
		return ErrBusy
	}
	// At most: one chunk closed by the mark, one by the entry, one by an end.
	if t.s.window.slot(t.nextID+3).Load() != nil {
		return ErrBusy
	}
	return nil
}

// place puts e where the log goes on, after an end and in the next segment if it must.
func (t *tail) place(e *entry, n int) ref {
	if t.off+int64(n)+endLen > t.seg.size {
		t.write(&entry{kind: kindEnd}, endLen)
		t.seg, t.off, t.spare = t.spare, segmentHeaderLen, nil
		signal(t.s.spareWake)
	}
	return t.write(e, n)
}

// placeMark reserves the room of a batch's mark; the committer knows what to say there.
func (t *tail) placeMark() {
	t.place(&t.noMark, markLen)
	c := t.chunk
	t.batch.mark = run{c, c.used - markLen, c.used, t.seg, t.off - markLen}
}

func (t *tail) write(e *entry, n int) ref {
	if t.chunk == nil || t.chunk.used+n > len(t.chunk.buf) {
		t.chunk = t.s.chunks.get(t.nextID, n)
		t.s.window.slot(t.nextID).Store(t.chunk)
		t.nextID++
	}
	c, from := t.chunk, t.chunk.used
	c.used += n
	e.put(c.buf[from:c.used], t.seg.seed, uint32(t.off))
	b := t.batch
	if last := len(b.runs) - 1; last >= 0 && b.runs[last].chunk == c && b.runs[last].seg == t.seg {
		b.runs[last].to = c.used
	} else {
		b.runs = append(b.runs, run{c, from, c.used, t.seg, t.off})
	}
	t.off += int64(n)
	return refOf(c, from)
}

// swap takes what is staged. The batch is the committer's until its next swap.
func (t *tail) swap() *batch {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, next := t.batch, t.other
	clear(next.items) // holds on to no completion
	clear(next.runs)
	next.items, next.runs, next.bytes, next.meta = next.items[:0], next.runs[:0], 0, false
	next.purges = 0
	t.batch, t.other = next, b
	return b
}

// close refuses all later entries; what is staged stays.
func (t *tail) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// setSpare gives the segment to go on in; false if there is one.
func (t *tail) setSpare(seg *segment) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spare != nil {
		return false
	}
	t.spare = seg
	return true
}

func (t *tail) wantsSpare() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.spare == nil && !t.closed
}

// leave ends the chunk being filled, if all of it is published, and returns it; else nil. For the
// committer.
func (t *tail) leave() *chunk {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.chunk
	if c == nil || c.published.Load() != int64(c.used) {
		return nil
	}
	t.chunk = nil
	return c
}
