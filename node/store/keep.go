package store

import (
	"errors"
	"syscall"
	"time"
)

const diskCheckEvery = time.Second

// keepLoop keeps a spare segment ready and an eye on the disk's free space.
func (s *Store) keepLoop(stop <-chan struct{}) {
	ticker := time.NewTicker(diskCheckEvery)
	defer ticker.Stop()
	for {
		s.checkSpace()
		s.makeSpare()
		if s.noSpace.Load() && s.purgesWait() {
			signal(s.wake) // for hastenPurges
		}
		signal(s.applyWake) // it may have waited for space
		select {
		case <-s.spareWake:
		case <-ticker.C:
		case <-s.abort:
			return
		case <-stop:
			return
		}
	}
}

// roomFor reports whether the table can surely write bytes more: into a memtable, and a full memtable
// into a table file beside it. It is asked before each write, because other processes fill disks too.
func (s *Store) roomFor(bytes int64) bool {
	if s.opts.ReserveBytes < 0 {
		return true
	}
	free, err := s.disk.Free()
	return err != nil || free >= uint64(min(2*bytes+4*s.opts.MemTableBytes, s.opts.lastReserve()))
}

// checkSpace opens or shuts the door for records. Badger writes through sparse memory maps, where a
// full disk is a SIGBUS that ends the process: writes must end before the space does.
func (s *Store) checkSpace() {
	if s.opts.ReserveBytes < 0 && !s.noSpace.Load() {
		return
	}
	free, err := s.disk.Free()
	if err != nil {
		s.log.Warn("store_disk_space_unknown", "error", err)
		return
	}
	short := free < uint64(max(s.opts.ReserveBytes, 0)) || s.tail.wantsSpare() && free < uint64(s.opts.SegmentBytes)
	s.scarce.Store(free < uint64(max(s.opts.lastReserve(), 0)))
	if s.noSpace.Swap(short) == short {
		return
	}
	if short {
		s.log.Error("store_disk_full: writes are refused until space returns", "free_bytes", free, "reserve_bytes", s.opts.ReserveBytes)
	} else {
		s.log.Info("store_disk_space_back", "free_bytes", free)
	}
}

func (s *Store) makeSpare() {
	if !s.tail.wantsSpare() || s.failed() != nil || s.aborted() {
		return
	}
	seg, err := s.segments.make(s.disk, s.opts.SegmentBytes)
	switch {
	case err == nil:
		s.tail.setSpare(seg)
	case s.aborted():
	case noRoom(err):
		s.noSpace.Store(true)
		s.log.Error("store_disk_full: no space for a log segment", "error", err)
	default:
		// Nothing of the log is lost by this; Put answers ErrBusy at the end of the segment.
		s.log.Error("store_log_no_spare", "error", err)
	}
}

// noRoom reports that an operation failed for lack of space.
func noRoom(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
