package store

import (
	"time"
)

// applyLoop moves sealed chunks from the overlay into the table. After stop, all of them.
func (s *Store) applyLoop(stop <-chan struct{}) {
	for {
		select {
		case <-s.applyWake:
			for s.applySome(s.applyFrom()) {
			}
		case <-s.abort:
			return
		case <-stop:
			s.sealLast()
			for s.applySome(1) {
			}
			return
		}
	}
}

// sealLast seals the newest chunk; nothing will be staged any more.
func (s *Store) sealLast() {
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	if n := len(s.live); n > 0 {
		s.seal(s.live[n-1])
	}
}

// applySome applies the oldest sealed chunks, some applyAt() bytes of them, if there are least bytes.
func (s *Store) applySome(least int64) bool {
	if s.aborted() || s.failed() != nil {
		signal(s.roomWake) // the committer must look why
		return false
	}
	chunks, bytes, ready, durable := s.applicable()
	if ready < least || len(chunks) == 0 {
		return false
	}
	if !s.roomFor(bytes) {
		s.checkSpace()
		return false
	}
	started := time.Now()
	rows := s.collect(chunks, durable)
	s.applyMu.Lock()
	err := s.table.Apply(rows)
	s.applyMu.Unlock()
	if err != nil {
		if !s.aborted() {
			s.fail("write to the table", err)
		}
		signal(s.roomWake)
		return false
	}
	s.counts.applied.Add(int64(len(rows) - 1))
	s.counts.applyNanos.Add(int64(time.Since(started)))
	s.drop(chunks, bytes)
	return true
}

// applicable returns the oldest chunks that may be applied and their bytes: sealed, and durable in
// the log. The table must not know of more than the log: a new log begins where the table says that
// the old one ended. ready counts the bytes of all chunks that may be applied; those with ids below
// durable are durable, and nothing will be added to them.
func (s *Store) applicable() (chunks []*chunk, bytes, ready int64, durable uint32) {
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	for _, c := range s.live {
		if !c.sealed || s.synced.less(c.end) {
			break
		}
		durable = c.id + 1
		ready += int64(len(c.buf))
		if bytes < s.applyAt() {
			chunks, bytes = append(chunks, c), bytes+int64(len(c.buf))
		}
	}
	return chunks, bytes, ready, durable
}

// collect returns the rows that chunks bring to the table, and last the mark that they did. An
// entry is left out when a newer one of its key is durable in the log, where it stays until it is in
// the table itself.
func (s *Store) collect(chunks []*chunk, durable uint32) []Row {
	var rows []Row
	for _, c := range chunks {
		c.each(func(e entry, r ref) {
			sh := s.shard(e.hash)
			sh.mu.Lock()
			newest := sh.newestRef(s.window, &e)
			sh.mu.Unlock()
			if newest == r || newest.chunk() >= durable {
				rows = append(rows, e.row())
			}
		})
	}
	return append(rows, appliedRow(chunks[len(chunks)-1].end))
}

// each calls fn with the published records, purges and metas of c, in order.
func (c *chunk) each(fn func(entry, ref)) {
	end := int(c.published.Load())
	for off := 0; off < end; {
		e, size := entryAt(c.buf[off:])
		if e.kind.ofRecord() || e.kind == kindMeta {
			fn(e, refOf(c, off))
		}
		off += size
	}
}

// drop takes applied chunks out of the overlay; their newest entries move to the cache.
func (s *Store) drop(chunks []*chunk, bytes int64) {
	var purges int64
	for _, c := range chunks {
		c.each(func(e entry, r ref) {
			sh := s.shard(e.hash)
			sh.mu.Lock()
			sh.settle(&e, r)
			sh.mu.Unlock()
			if e.kind == kindPurge {
				purges++
			}
		})
	}
	s.counts.purged.Add(purges)
	end := chunks[len(chunks)-1].end
	s.liveMu.Lock()
	s.live = append([]*chunk(nil), s.live[len(chunks):]...)
	s.sealed -= bytes
	s.liveMu.Unlock()
	for _, c := range chunks {
		s.window.slot(c.id).Store(nil)
		c.release()
	}
	signal(s.roomWake)
	if err := s.segments.release(s.disk, end.segment); err != nil && !s.aborted() {
		s.log.Warn("store_log_not_freed", "error", err)
	}
}
