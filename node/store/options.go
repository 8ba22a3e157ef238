package store

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"time"

	"kai/node/record"
)

// Options of Open. Zero fields get the defaults written beside them.
type Options struct {
	// Dir is the data directory. Needed unless both Disk and Table are given.
	Dir string
	// Disk holds the commit log; default: files in Dir/log. A given Disk is not closed by Close.
	Disk Disk
	// Table holds the records; default: Badger in Dir/table. A given Table is not closed by Close.
	Table Table
	// Logger gets life cycle and failures; default: nothing.
	Logger *slog.Logger

	// Interval acknowledges writes once they are written, and syncs the log every SyncInterval
	// (default 100 ms). Otherwise every write is synced before it is acknowledged.
	Interval     bool
	SyncInterval time.Duration
	// BatchBegin is called before the writers of a committed batch are told, BatchEnd after it: the
	// place to send on what they answered. On the committer's goroutine; they must not block. May be nil.
	BatchBegin, BatchEnd func()
	// Alone tells whether this node has no peers: see pacer. It must not block. Nil: it has.
	Alone func() bool
	// BootID names this start of the machine (/proc/sys/kernel/random/boot_id). Empty: not known; any
	// unclean stop then counts as one of the machine.
	BootID string

	// MaxRecordBytes bounds one encoded record; default 1 MiB and record.Overhead.
	MaxRecordBytes int
	// CacheBytes of memory for the record cache; 0: none. Its index comes on top (some 30 bytes a record).
	CacheBytes int64
	// OverlayBytes bounds the log entries that are committed but not yet in the table; default
	// 64 MiB. More memory, longer replay after a crash, fewer writes to the table when keys repeat.
	// Commits wait while it is full.
	OverlayBytes int64
	// QueueBytes and QueueEntries bound what is staged and not yet committed; default a quarter of
	// OverlayBytes, and 65,536.
	// Beyond, Put answers ErrBusy.
	QueueBytes   int64
	QueueEntries int
	// SegmentBytes is the size of a log segment; default 16 MiB, or twice MaxRecordBytes if that is
	// more. It is raised to what the largest record needs.
	SegmentBytes int64
	// ReserveBytes of free disk space below which Put answers ErrFull, and below three quarters of
	// which Purge does; default: computed from the sizes below, such that those three quarters are
	// for what the table may still have to write. Negative: no check.
	ReserveBytes int64

	// MemTableBytes and MemTables are Badger's; default 16 MiB and 2.
	MemTableBytes int64
	MemTables     int
	// VerifyEvery is how often the whole table is read and checked while running; default a day,
	// negative: never. Badger itself does not notice all damage when it reads.
	VerifyEvery time.Duration
	// BlockCacheBytes is for Badger's blocks; default 0: the page cache and the record cache do it.
	BlockCacheBytes int64

	// chunkBytes is the unit of the overlay; tests make it small.
	chunkBytes int
}

func (o *Options) fill() error {
	if o.Dir == "" && (o.Disk == nil || o.Table == nil) {
		return errors.New("store: Options.Dir is empty")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.BatchBegin == nil {
		o.BatchBegin = func() {}
	}
	if o.BatchEnd == nil {
		o.BatchEnd = func() {}
	}
	if o.Alone == nil {
		o.Alone = func() bool { return false }
	}
	def(&o.SyncInterval, 100*time.Millisecond)
	def(&o.MaxRecordBytes, 1<<20+record.Overhead)
	def(&o.OverlayBytes, 64<<20)
	def(&o.QueueBytes, o.OverlayBytes/4)
	def(&o.QueueEntries, 1<<16)
	largest := int64(entrySize(record.MaxInternalKey, o.MaxRecordBytes))
	def(&o.SegmentBytes, max(16<<20, 2*largest))
	o.SegmentBytes = (max(o.SegmentBytes, largest+segmentHeaderLen+markLen+endLen) + 4095) &^ 4095
	if o.SegmentBytes > math.MaxUint32 {
		return fmt.Errorf("store: Options.SegmentBytes %d is over 4 GiB", o.SegmentBytes)
	}
	def(&o.MemTableBytes, 16<<20)
	def(&o.MemTables, 2)
	def(&o.VerifyEvery, 24*time.Hour)
	// What may come after the guards shut: the overlay and the queue into memtables (each a log and,
	// flushed, a table file), a compaction beside them, and the two segments being made. A third of
	// that on top is what purges may use before they have made room.
	last := 2*(o.OverlayBytes+o.QueueBytes) + int64(4*(o.MemTables+2))*o.MemTableBytes + 2*o.SegmentBytes
	def(&o.ReserveBytes, last+last/3)
	def(&o.chunkBytes, int(min(1<<20, max(o.OverlayBytes/32, 4<<10))))
	return nil
}

// lastReserve is the free space below which purges, too, are refused.
func (o *Options) lastReserve() int64 { return o.ReserveBytes / 4 * 3 }

func def[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}
