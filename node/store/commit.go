package store

import (
	"errors"
	"runtime"
	"time"
)

// commitLoop writes what Put stages until stop, then what is staged by then; or until a failure. One batch is on its way
// to the disk while the next gathers: the more writers, the larger the batches, and the fewer syncs.
func (s *Store) commitLoop(stop <-chan struct{}) {
	var syncTimer *time.Timer
	var syncDue <-chan time.Time
	for {
		select {
		case <-s.wake:
			s.commitStaged()
			s.hastenPurges()
		case <-syncDue:
			syncDue = nil
			s.syncWritten()
		case <-s.abort:
			return
		case <-s.failing:
			s.tail.close()
			s.commitStaged() // tells the writers
			return
		case <-stop:
			s.tail.close()
			s.commitStaged()
			s.syncWritten()
			if syncTimer != nil {
				syncTimer.Stop()
			}
			return
		}
		if syncDue == nil && s.durable.less(s.written) && s.failed() == nil {
			syncTimer = time.NewTimer(s.opts.SyncInterval)
			syncDue = syncTimer.C
		}
	}
}

// commitStaged commits batches until nothing is staged.
func (s *Store) commitStaged() {
	for {
		s.awaitCompany()
		b := s.tail.swap()
		if len(b.items) == 0 {
			return
		}
		if s.failed() == nil {
			s.awaitRoom()
		}
		if s.failed() == nil {
			s.write(b)
		}
		if s.aborted() {
			return
		}
		s.opts.BatchBegin()
		if err := s.failed(); err != nil {
			for _, it := range b.items {
				it.done.Committed(err)
			}
		} else {
			s.publish(b)
		}
		s.opts.BatchEnd()
		// Whoever was woken just now may have more to write. Letting them go first doubles the size
		// of the next batch, and halves the syncs.
		runtime.Gosched()
	}
}

// awaitCompany lets more writers join the batch, if that is worth it.
func (s *Store) awaitCompany() {
	if s.opts.Interval {
		return
	}
	if d := s.pacer.wait(time.Now(), s.opts.Alone()); d > 0 {
		time.Sleep(d)
	}
}

// awaitRoom waits until the overlay may grow, or there is no sense in waiting.
func (s *Store) awaitRoom() {
	for s.failed() == nil && !s.aborted() {
		s.liveMu.Lock()
		full := s.sealed >= s.opts.OverlayBytes
		s.liveMu.Unlock()
		if !full || s.syncWritten() != nil { // the applier takes only what is synced
			return
		}
		s.counts.stalls.Add(1)
		select {
		case <-s.roomWake:
		case <-s.abort:
		}
	}
}

// write brings b into the log, as durable as the settings ask. Failures go to s.failure.
func (s *Store) write(b *batch) {
	b.fillMark(s.durable)
	started := time.Now()
	for i := range b.runs {
		r := &b.runs[i]
		if s.aborted() {
			return
		}
		// The segments of the log before r.seg must be durable first, or a crash could leave a hole.
		if r.seg.seq != s.written.segment && s.syncWritten() != nil {
			return
		}
		if s.writeRun(r) != nil {
			return
		}
	}
	s.counts.batches.Add(1)
	s.counts.logBytes.Add(b.bytes)
	switch {
	case !s.opts.Interval:
		ended := time.Now()
		s.pacer.synced(ended, ended.Sub(started), len(b.items))
	case b.meta:
		s.syncWritten()
	}
}

// writeRun writes r, durably unless a later sync is to do that.
func (s *Store) writeRun(r *run) error {
	entries, end := r.chunk.buf[r.from:r.to], position{r.seg.seq, uint32(r.off) + uint32(r.to-r.from)}
	if s.opts.Interval {
		if _, err := r.seg.file.WriteAt(entries, r.off); err != nil {
			return s.fail("write "+segmentName(r.seg.seq), err)
		}
		s.written = end
		return nil
	}
	started := time.Now()
	if err := r.seg.file.WriteSync(entries, r.off); err != nil {
		return s.fail("write and sync "+segmentName(r.seg.seq), err)
	}
	s.counts.synced(time.Since(started))
	s.noteWaits()
	s.written = end
	s.markDurable()
	return nil
}

// markDurable notes that all that is written is durable.
func (s *Store) markDurable() {
	s.durable = s.written
	s.liveMu.Lock()
	s.synced = s.durable
	s.liveMu.Unlock()
}

// fillMark completes the batch's first entry: the log is durable up to pos.
func (b *batch) fillMark(pos position) {
	mark := entry{kind: kindMark, value: pos.append(nil)}
	mark.put(b.mark.chunk.buf[b.mark.from:b.mark.to], b.mark.seg.seed, uint32(b.mark.off))
}

// syncWritten makes all that is written durable.
func (s *Store) syncWritten() error {
	if s.aborted() {
		return ErrClosed // not durable, so nothing may be written that relies on it
	}
	if s.durable == s.written {
		return nil
	}
	if err := s.failed(); err != nil {
		return err
	}
	seg := s.segments.find(s.written.segment)
	if seg == nil {
		return s.fail("sync", errors.New("segment is gone"))
	}
	started := time.Now()
	if err := seg.file.Sync(); err != nil {
		return s.fail("sync "+segmentName(seg.seq), err)
	}
	s.counts.synced(time.Since(started))
	s.markDurable()
	if s.opts.Interval {
		signal(s.applyWake) // chunks may have waited for this
	}
	return nil
}

func (g *segments) find(seq uint64) *segment {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, seg := range g.used {
		if seg.seq == seq {
			return seg
		}
	}
	return nil
}

// publish makes the entries of a committed batch visible and tells their writers, in order.
func (s *Store) publish(b *batch) {
	s.addLive(b)
	for _, it := range b.items {
		e := s.window.at(it.ref)
		sh := s.shard(e.hash)
		sh.mu.Lock()
		sh.setDirty(s.window, &e, it.ref)
		sh.mu.Unlock()
		if s.aborted() {
			return
		}
		it.done.Committed(nil)
	}
	s.counts.puts.Add(int64(len(b.items)))
	s.counts.purges.Add(b.purges)
	s.sealFinished()
}

// addLive hands the batch's chunks to the overlay. It comes before the index: a scan looks at the
// chunks, and must find there whatever has been acknowledged.
func (s *Store) addLive(b *batch) {
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	for i := range b.runs {
		r := &b.runs[i]
		if n := len(s.live); n == 0 || s.live[n-1] != r.chunk {
			s.live = append(s.live, r.chunk)
		}
		r.chunk.end = position{r.seg.seq, uint32(r.off) + uint32(r.to-r.from)}
		r.chunk.published.Store(int64(r.to))
	}
}

// sealFinished gives the chunks that will not grow to the applier. It comes after the index, by
// which the applier tells what is worth writing.
func (s *Store) sealFinished() {
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	for i := len(s.live) - 1; i >= 0 && !s.live[i].sealed; i-- {
		if c := s.live[i]; i < len(s.live)-1 || int(c.published.Load()) == len(c.buf) {
			s.seal(c)
		}
	}
	if s.sealed >= s.applyFrom() {
		signal(s.applyWake)
	}
}

// seal marks c as finished; the caller holds liveMu.
func (s *Store) seal(c *chunk) {
	if !c.sealed {
		c.sealed = true
		s.sealed += int64(len(c.buf))
	}
}

// applyAt is how many bytes make a batch for the table: large enough to be worth a sync, small enough
// that the rest of the overlay takes what comes meanwhile.
func (s *Store) applyAt() int64 { return s.opts.OverlayBytes / 4 }

// applyFrom is how full the overlay is when the table gets a batch. The fuller, the more entries of
// the batch have newer ones of their keys behind them, and need not be written to the table at all:
// of 100,000 keys written at random, all but a sixth.
//
// When the disk is full and there are purges in the overlay, they must not wait for writes to fill it:
// there may be none until they have made room.
func (s *Store) applyFrom() int64 {
	if s.noSpace.Load() && s.purgesWait() {
		return 1
	}
	return s.opts.OverlayBytes * 3 / 4
}
