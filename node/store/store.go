// Package store keeps a node's records and its small durable facts on disk: a commit log that all
// writers of the node share, an overlay of what is not yet in the table, a record cache, and below
// them the table (Badger). DESIGN.md says how they fit and why.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"kai/node/record"
	"kai/node/ring"
)

var (
	// ErrBusy: a bounded queue is full; nothing was done. Try again later.
	ErrBusy = errors.New("store: busy")
	// ErrFull: the disk is short of space; nothing was done. Ends by itself when space returns.
	ErrFull = errors.New("store: disk full")
	// ErrFailed: the disk refused a write or a sync. It lasts until the process starts again, because
	// after a failed sync nobody knows what is on the disk ("fsyncgate"). The outcome of the writes
	// under way is unknown.
	ErrFailed = errors.New("store: disk failed")
	// ErrClosed: the store is closing, closed or aborted; nothing was done.
	ErrClosed = errors.New("store: closed")
	// ErrTooLarge: the key or the record is over the store's limits; nothing was done.
	ErrTooLarge = errors.New("store: record too large")
	// ErrLogCorrupt: the commit log is damaged where it was certainly once whole. The node must not
	// go on from it: acknowledged writes may be missing.
	ErrLogCorrupt = errors.New("store: commit log corrupt")
	// ErrInUse: another process has the data directory open.
	ErrInUse = errors.New("store: data directory is in use")
)

// Completion hears of one staged write. It is an alias so that consumers need not import this name.
type Completion = interface {
	// Committed is called once: nil when the write is durable as the durability setting has it, or
	// an error of this package. It must not block: all writers of the node wait for it.
	Committed(error)
}

// Store is the durable state of one node. All methods are safe for concurrent use.
type Store struct {
	opts   Options
	log    *slog.Logger
	disk   Disk
	table  Table
	owned  []interface{ Close() error } // what Close must close: only what Open opened
	shards []shard
	window window
	chunks chunks

	tail tail // what Put appends to

	// live holds the published chunks that are not yet in the table, oldest first.
	liveMu sync.Mutex
	live   []*chunk
	sealed int64    // bytes of the sealed ones among them
	synced position // the log is durable up to here

	segments segments // retained segment files

	wake      chan struct{} // committer: there is a batch
	applyWake chan struct{} // applier: there may be enough to apply
	roomWake  chan struct{} // committer: the overlay has shrunk
	spareWake chan struct{} // keeper: a spare segment is wanted
	abort     chan struct{}
	abortOnce sync.Once

	durable position // committer only: the log is synced up to here
	written position // committer only: the log is written up to here
	aside   bool     // syncs were to be made aside (File.WriteSync), and nobody has been told otherwise; the committer's, from Open on
	pacer   pacer

	failure atomic.Pointer[error]
	failing chan struct{} // closed on failure
	noSpace atomic.Bool   // the reserve is touched: records are refused
	scarce  atomic.Bool   // a quarter of it is gone: so are purges
	running atomic.Bool
	counts  counts

	// applyMu: the table takes one Apply at a time.
	applyMu sync.Mutex

	cleanStop, amnesia bool // as found by Open
	forgetful          bool // amnesia, not yet cleared; under applyMu
}

// Open opens or creates the store and replays the commit log into the table. It starts no goroutine
// of its own, but nothing is committed before Run.
func Open(opts Options) (*Store, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	s := &Store{
		opts: opts, log: opts.Logger, disk: opts.Disk, table: opts.Table,
		wake: make(chan struct{}, 1), applyWake: make(chan struct{}, 1),
		roomWake: make(chan struct{}, 1), spareWake: make(chan struct{}, 1),
		abort: make(chan struct{}), failing: make(chan struct{}),
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.closeOwned())
	}
	return s, nil
}

// SyncsAside reports whether no thread waits for the log's disk in a store without Options.Interval.
func (s *Store) SyncsAside() bool {
	d, ok := s.disk.(*OSDisk)
	return ok && d.SyncsAside()
}

// noteWaits says, once, that threads wait for the log's disk, though its syncs were to be made aside.
func (s *Store) noteWaits() {
	if s.aside && !s.SyncsAside() {
		s.aside = false
		s.log.Info("store_waits_for_syncs: the kernel or the file system of the data directory does not take writes past its page cache; each sync keeps a thread waiting, which costs some speed", "dir", s.opts.Dir)
	}
}

func (s *Store) open() error {
	if s.disk == nil {
		disk, err := OpenDisk(s.opts.Dir)
		if err != nil {
			return err
		}
		s.disk = disk
		s.owned = append(s.owned, disk)
	}
	if _, ok := s.disk.(*OSDisk); ok && !s.opts.Interval {
		s.aside = true
		s.noteWaits()
	}
	if s.table == nil {
		table, err := OpenBadger(s.opts)
		if err != nil {
			return err
		}
		s.table = table
		s.owned = append([]interface{ Close() error }{table}, s.owned...)
	}
	memory := newArena(s.opts.CacheBytes + s.opts.OverlayBytes + 2*s.opts.QueueBytes)
	s.chunks = chunks{arena: memory, size: s.opts.chunkBytes}
	s.shards = newShards(s.opts.CacheBytes, memory)
	s.window = newWindow(s.opts)
	s.tail.init(s)
	return s.recover()
}

// Run commits and applies until ctx ends, then takes no more writes, commits what is staged, brings
// all of it into the table and leaves the mark of a clean stop. After a failure it returns early,
// with an error that wraps ErrFailed; reads still work, until Close. It returns when all its
// goroutines have ended, and may be called once.
func (s *Store) Run(ctx context.Context) error {
	if !s.running.CompareAndSwap(false, true) {
		return errors.New("store: Run called twice")
	}
	var wg sync.WaitGroup
	stopApply, stopKeep := make(chan struct{}), make(chan struct{})
	wg.Go(func() { s.applyLoop(stopApply) })
	var keeper sync.WaitGroup
	keeper.Go(func() { s.keepLoop(stopKeep) })
	keeper.Go(func() { s.verifyLoop(stopKeep) })
	s.commitLoop(ctx.Done()) // returns with the tail closed and empty
	close(stopApply)
	wg.Wait()
	close(stopKeep)
	keeper.Wait()
	if s.aborted() {
		return nil
	}
	if err := s.failed(); err != nil {
		return err
	}
	return s.writeState(true)
}

// Close frees what Open took. Call it after Run returned (or if Run was never called, in which case
// staged writes are refused).
func (s *Store) Close() error {
	s.tail.close()
	for _, it := range s.tail.swap().items {
		if !s.aborted() {
			it.done.Committed(ErrClosed)
		}
	}
	return errors.Join(s.segments.close(), s.closeOwned())
}

func (s *Store) closeOwned() error {
	var errs []error
	for _, c := range s.owned {
		errs = append(errs, c.Close())
	}
	s.owned = nil
	return errors.Join(errs...)
}

// Abort ends the store as a crash would: Run returns soon, nothing more is written, and staged
// writes never hear of their outcome. For simulations.
func (s *Store) Abort() {
	s.abortOnce.Do(func() { close(s.abort) })
	s.tail.close()
}

func (s *Store) aborted() bool {
	select {
	case <-s.abort:
		return true
	default:
		return false
	}
}

// failed returns the error that ended all commits, or nil.
func (s *Store) failed() error {
	if p := s.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// Failed is closed when the store fails for good (Failure says why): by a write or a sync that the
// disk refused, perhaps one that nobody waits for, or by a damaged table. The node must stop voting.
func (s *Store) Failed() <-chan struct{} { return s.failing }

// Failure is the error that wraps ErrFailed, or nil.
func (s *Store) Failure() error { return s.failed() }

func (s *Store) fail(what string, err error) error {
	err = fmt.Errorf("%w: %s: %w", ErrFailed, what, err)
	if s.failure.CompareAndSwap(nil, &err) {
		close(s.failing)
		s.log.Error("store_failed: no more writes until restart", "error", err)
	}
	return s.failed()
}

// Put stages a write of key's record and returns at once. done.Committed is called exactly once, on
// the committer's goroutine, or before Put returns when the write is refused. key and enc are copied.
// Writes become durable and visible in the order of Put. enc must be a valid encoding.
func (s *Store) Put(p ring.Partition, hash uint64, key, enc []byte, done interface{ Committed(error) }) {
	if len(key) > record.MaxInternalKey || len(enc) > s.opts.MaxRecordBytes {
		done.Committed(ErrTooLarge)
		return
	}
	s.stage(entry{kind: kindRecord, p: p, hash: hash, key: key, value: enc}, done)
}

func (s *Store) stage(e entry, done interface{ Committed(error) }) {
	first, err := s.tail.append(&e, done)
	if err != nil {
		s.counts.refused.Add(1)
		done.Committed(err)
		return
	}
	if first {
		signal(s.wake)
	}
}

// signal wakes whoever waits on c, now or when it next looks.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// CleanStop reports whether the previous run ended cleanly (true for a new store).
func (s *Store) CleanStop() bool { return s.cleanStop }

// Amnesia reports that acknowledged writes may be missing: the previous run had interval durability,
// did not stop cleanly, and the machine has started again since. The node must rejoin before it votes.
// It is reported at each start until ClearAmnesia.
func (s *Store) Amnesia() bool { return s.amnesia }

// ClearAmnesia is for the node that has rejoined: a later start no longer reports the amnesia of an
// earlier run. It waits for the disk.
func (s *Store) ClearAmnesia() error {
	s.applyMu.Lock()
	s.forgetful = false
	s.applyMu.Unlock()
	return s.writeState(false)
}
