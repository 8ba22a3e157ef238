package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// recover brings what a former run left in the log into the table, then begins the log anew.
func (s *Store) recover() error {
	st, err := readState(s.table)
	if err != nil {
		return err
	}
	if err := s.reverify(st); err != nil {
		return err
	}
	seqs, err := s.listLog()
	if err != nil {
		return fmt.Errorf("store: list the log: %w", err)
	}
	r := replay{s: s, applied: st.applied, end: st.applied}
	if err := r.run(seqs, st); err != nil {
		return err
	}
	s.cleanStop = !st.Known || st.Clean
	s.amnesia = st.Amnesia || !s.cleanStop && st.Interval && (st.BootID != s.opts.BootID || st.BootID == "")
	s.forgetful = s.amnesia
	if err := s.begin(seqs, st); err != nil {
		return fmt.Errorf("store: begin the log: %w", err)
	}
	return nil
}

// listLog returns the sequence numbers of the segments, ascending, and notes spares.
func (s *Store) listLog() ([]uint64, error) {
	names, err := s.disk.List()
	if err != nil {
		return nil, err
	}
	var seqs []uint64
	for _, name := range names {
		if seq, ok := parseSegmentName(name); ok {
			seqs = append(seqs, seq)
		}
		if err := s.segments.adopt(s.disk, name); err != nil {
			return nil, err
		}
	}
	slices.Sort(seqs)
	return seqs, nil
}

// begin starts the log behind all that was replayed. A crash between any two steps leaves what the
// next start understands: first the table learns that the old segments are done with, whatever is
// left of them; then they become spares; then the new one is made; and only when it is there, that
// there must be one.
func (s *Store) begin(seqs []uint64, st state) error {
	next := st.applied.segment + 1
	if len(seqs) > 0 {
		next = max(next, seqs[len(seqs)-1]+1)
	}
	st.Amnesia, st.Logging, st.Damaged = s.amnesia, false, false
	if err := s.table.Apply([]Row{appliedRow(position{segment: next}), st.row()}); err != nil {
		return err
	}
	s.segments.last = next - 1
	for _, seq := range seqs {
		if err := s.segments.retire(s.disk, segmentName(seq)); err != nil {
			return err
		}
	}
	seg, err := s.segments.make(s.disk, s.opts.SegmentBytes)
	if noRoom(err) {
		return fmt.Errorf("%w; make room on the disk of the data directory: a segment of the log takes %d MiB, and records are written while more than %d MiB are free",
			err, s.opts.SegmentBytes>>20, s.opts.ReserveBytes>>20)
	}
	if err != nil {
		return err
	}
	s.tail.seg, s.tail.off = seg, segmentHeaderLen
	s.written = position{seg.seq, segmentHeaderLen}
	s.durable = s.written
	return s.writeState(false)
}

// replay reads segments in order.
type replay struct {
	s       *Store
	applied position       // entries up to here are in the table
	end     position       // behind the last good entry
	cut     bool           // end is where the log breaks off; nothing later counts
	rows    map[string]Row // by table key, the newest
	bytes   int
}

// replayBytes is how much is gathered before it is applied.
const replayBytes = 8 << 20

func (r *replay) run(seqs []uint64, st state) error {
	r.rows = map[string]Row{}
	next := r.applied.segment
	for _, seq := range seqs {
		if seq < r.applied.segment {
			continue // all in the table; the crash came before its removal, or undid it
		}
		if seq != next {
			return fmt.Errorf("%w: segment %s is missing. %s", ErrLogCorrupt, segmentName(next), whatToDo)
		}
		next++
		if err := r.segment(seq); err != nil {
			return err
		}
	}
	if st.Logging && next == r.applied.segment {
		return fmt.Errorf("%w: segment %s is missing. %s", ErrLogCorrupt, segmentName(next), whatToDo)
	}
	return r.apply()
}

// whatToDo ends every message about a damaged log.
const whatToDo = "Acknowledged writes may be lost: do not delete single files. Move the whole data directory away and start the node as a new one; its peers, or a backup, hold the data"

// segment replays one segment.
func (r *replay) segment(seq uint64) (err error) {
	name := segmentName(seq)
	file, err := r.s.disk.Open(name)
	if err != nil {
		return fmt.Errorf("store: open log segment %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	// What is readable may still be only in the page cache, if the process died and the machine did
	// not. It is about to be served as durable.
	if err := file.Sync(); err != nil {
		return fmt.Errorf("store: sync log segment %s: %w", name, err)
	}
	size, err := file.Size()
	if err != nil {
		return fmt.Errorf("store: read log segment %s: %w", name, err)
	}
	buf := make([]byte, size)
	if n, err := file.ReadAt(buf, 0); err != nil && !(errors.Is(err, io.EOF) && int64(n) == size) {
		return fmt.Errorf("store: read log segment %s: %w", name, err)
	}
	if err := checkHeader(buf, seq); err != nil {
		return fmt.Errorf("%w: segment %s: %w. %s", ErrLogCorrupt, name, err, whatToDo)
	}
	if !r.cut {
		return r.entries(seq, buf)
	}
	// A segment is durable whole before the next is written to.
	if _, _, ok := parseEntry(buf[segmentHeaderLen:], seedOf(buf), segmentHeaderLen); ok {
		return r.damaged("the log goes on in " + name)
	}
	return r.doubt(seq, buf, segmentHeaderLen)
}

// entries takes the entries of a segment up to its end or the first that is none.
func (r *replay) entries(seq uint64, buf []byte) error {
	seed := seedOf(buf)
	for off := segmentHeaderLen; ; {
		e, n, ok := parseEntry(buf[off:], seed, uint32(off))
		if !ok {
			r.end, r.cut = position{seq, uint32(off)}, true
			return r.doubt(seq, buf, off)
		}
		off += n
		r.end = position{seq, uint32(off)}
		switch e.kind {
		case kindEnd:
			return nil
		case kindRecord, kindPurge, kindMeta:
			if r.applied.less(r.end) {
				if err := r.add(&e); err != nil {
					return err
				}
			}
		}
	}
}

// doubt looks behind the end of the good entries for a mark which says that the log was durable
// beyond it. Without one, what follows is the torn rest of writes that were never acknowledged.
func (r *replay) doubt(seq uint64, buf []byte, from int) error {
	seed := seedOf(buf)
	for off := from; off+markLen <= len(buf); off += 8 {
		if buf[off+24] != byte(kindMark) {
			continue
		}
		e, _, ok := parseEntry(buf[off:], seed, uint32(off))
		if !ok || e.kind != kindMark {
			continue
		}
		if pos := positionOf(e.value); r.end.less(pos) {
			return r.damaged(fmt.Sprintf("the log was whole up to offset %d of %s", pos.offset, segmentName(pos.segment)))
		}
	}
	return nil
}

// damaged is the error for a log that breaks off although there was more, which proof says.
func (r *replay) damaged(proof string) error {
	return fmt.Errorf("%w: segment %s is damaged at offset %d; %s. %s",
		ErrLogCorrupt, segmentName(r.end.segment), r.end.offset, proof, whatToDo)
}

func (r *replay) add(e *entry) error {
	row := e.row()
	row.Value = bytes.Clone(row.Value)
	r.rows[string(row.Key)] = row
	r.bytes += e.size()
	if r.bytes < replayBytes {
		return nil
	}
	return r.apply()
}

// apply writes what was gathered, and how far it reaches, into the table.
func (r *replay) apply() error {
	if len(r.rows) == 0 {
		return nil
	}
	rows := make([]Row, 0, len(r.rows)+1)
	for _, row := range r.rows {
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b Row) int { return bytes.Compare(a.Key, b.Key) })
	r.s.log.Info("store_log_replayed", "rows", len(rows), "bytes", r.bytes)
	if err := r.s.table.Apply(append(rows, appliedRow(r.end))); err != nil {
		return fmt.Errorf("store: replay the log: %w", err)
	}
	r.rows, r.bytes = map[string]Row{}, 0
	return nil
}
