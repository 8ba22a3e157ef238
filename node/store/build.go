package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"

	"kai/node/ring"
)

// A node that begins with a snapshot has many records to store and nobody who asks for them meanwhile. Through the log, memtables and compactions each would be
// written four times. Instead they are written once, in the order of keys, into tables of a database beside the one in use, which then takes its place.

const (
	// wholeName is a file in the directory of a database that was built: it was finished.
	wholeName = "WHOLE"
	// buildTable is the size of the files that are built: sixteen may be on their way to the disk.
	buildTable = 16 << 20
	// buildBuffer is how much of a stream is handed over at once.
	buildBuffer = 1 << 20
)

// builder is a Table that can be built anew. It is optional.
type builder interface {
	build() (*Build, error)
	// replace has what was built, and rows, take the place of all the table had. Not called concurrently with itself or Apply.
	replace(b *Build, rows []Row) error
}

// Build is a table being built. Its user calls Finish or Discard in the end.
type Build struct {
	s        *Store
	db       *badger.DB
	w        *badger.StreamWriter
	dir      string
	pieceLen int
}

// Build begins to build a table. It is nil if that cannot be done: there are records already, or the table is of another kind. Until Finish has returned nobody else
// may put or get records; named values may be.
func (s *Store) Build() (*Build, error) {
	t, ok := s.table.(builder)
	if !ok || s.holdsRecords() {
		return nil, nil
	}
	b, err := t.build()
	if err != nil {
		return nil, fmt.Errorf("store: build table: %w", err)
	}
	b.s = s
	return b, nil
}

var (
	errFound = errors.New("there is one")
	errOrder = errors.New("store: records to build a table of are not in order")
)

func (s *Store) holdsRecords() bool {
	if s.table.Scan([]byte{spaceRecord}, []byte{spaceRecord + 1}, func(_, _ []byte) error { return errFound }) != nil {
		return true // or an error: then all goes the long way, which tells it
	}
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	found := false
	for _, c := range s.live {
		c.each(func(e entry, _ ref) { found = found || e.kind.ofRecord() })
	}
	return found
}

// Stream is a part of what is built: records in the order of partitions and keys. Those of different streams must not interleave. It is for one goroutine.
type Stream struct {
	b    *Build
	id   uint32
	buf  *z.Buffer
	last []byte // key in the table
}

// Stream returns the stream of a number.
func (b *Build) Stream(id int) *Stream {
	return &Stream{b: b, id: uint32(id), buf: z.NewBuffer(buildBuffer+buildBuffer/8, "store.Build")}
}

// Fits reports whether a record of n bytes can be built; larger ones are put once the build is finished.
func (b *Build) Fits(n int) bool { return n <= b.pieceLen }

// Put adds a record, which is valid and fits. It may wait for the disk. It keeps no slice.
func (s *Stream) Put(p ring.Partition, key, enc []byte) error {
	k := appendTableKey(make([]byte, 0, recordPrefixLen+len(key)), p, key)
	if bytes.Compare(k, s.last) <= 0 {
		return errOrder // Badger would end the process
	}
	s.last = k
	badger.KVToBuffer(&pb.KV{Key: k, Value: enc, Version: 1, StreamId: s.id}, s.buf)
	if s.buf.LenNoPadding() < buildBuffer {
		return nil
	}
	return s.write()
}

// Close ends the stream. Whoever has failed need not.
func (s *Stream) Close() error {
	badger.KVToBuffer(&pb.KV{StreamId: s.id, StreamDone: true}, s.buf)
	return errors.Join(s.write(), s.buf.Release())
}

func (s *Stream) write() error {
	if s.b.s.noSpace.Load() {
		return ErrFull // a table that does not fit on the disk would end the process: see checkSpace
	}
	err := s.b.w.Write(s.buf)
	s.buf.Reset()
	if err != nil {
		return fmt.Errorf("store: build table: %w", err)
	}
	return nil
}

// Discard gives up what was built.
func (b *Build) Discard() {
	if b.w != nil {
		b.w.Cancel()
	}
	if b.db != nil {
		_ = b.db.Close()
	}
	_ = os.RemoveAll(b.dir)
}

// Finish has what was built take the place of the table. It waits for the disk; all of it is durable then. All streams are closed. After an error the table is as it
// was, or, if the store has failed, one or the other.
func (b *Build) Finish() error {
	s := b.s
	if err := b.w.Flush(); err != nil {
		return fmt.Errorf("store: build table: %w", err)
	}
	b.w = nil
	err := b.db.Close()
	b.db = nil
	if err != nil {
		return fmt.Errorf("store: build table: %w", err)
	}
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	var rows []Row
	for _, space := range []byte{spaceMeta, spaceState} {
		if err := s.table.Scan([]byte{space}, []byte{space + 1}, func(key, value []byte) error {
			rows = append(rows, Row{Key: append([]byte(nil), key...), Value: append([]byte(nil), value...)})
			return nil
		}); err != nil {
			return fmt.Errorf("store: build table: %w", err)
		}
	}
	if err := s.table.(builder).replace(b, rows); err != nil {
		return s.fail("replace the table", err)
	}
	return nil
}

// tableDir returns the directory of the table that is in use, in dir, and removes those that are not.
func tableDir(dir string) (string, error) {
	current := filepath.Join(dir, "table")
	all, err := filepath.Glob(filepath.Join(dir, "table*"))
	if err != nil {
		return "", err
	}
	number := func(name string) int {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(name), "table."))
		if err != nil {
			return 0
		}
		return n
	}
	for _, name := range all {
		if _, err := os.Stat(filepath.Join(name, wholeName)); err == nil && number(name) > number(current) {
			current = name
		}
	}
	if err := os.MkdirAll(current, 0o700); err != nil {
		return "", err
	}
	for _, name := range all {
		if name != current {
			if err := os.RemoveAll(name); err != nil {
				return "", err
			}
		}
	}
	return current, nil
}

// build implements builder.
func (t *BadgerTable) build() (*Build, error) {
	old := t.current.Load().dir
	n := 1
	if v, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(old), "table.")); err == nil {
		n = v + 1
	}
	dir := filepath.Join(t.opts.Dir, "table."+strconv.Itoa(n))
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	bo := badgerOptions(dir, &t.opts)
	b := &Build{dir: dir, pieceLen: pieceLen(bo)}
	var err error
	bo.BaseTableSize, bo.TableSizeMultiplier = buildTable, 1
	if b.db, err = badger.Open(bo); err != nil {
		b.Discard()
		return nil, err
	}
	b.w = b.db.NewStreamWriter()
	if err := b.w.Prepare(); err != nil {
		b.Discard()
		return nil, err
	}
	return b, nil
}

// replace implements builder.
func (t *BadgerTable) replace(b *Build, rows []Row) error {
	built, err := openBadger(b.dir, t.opts)
	if err != nil {
		return err
	}
	if err := built.Apply(rows); err != nil {
		return errors.Join(err, built.Close())
	}
	if err := writeWhole(b.dir); err != nil {
		return errors.Join(err, built.Close())
	}
	old := t.current.Swap(built.current.Load())
	t.pieces = built.pieces
	for old.users.Load() > 0 {
		time.Sleep(time.Millisecond) // readers of named values
	}
	// What cannot be removed now the next start removes.
	_ = old.Close()
	_ = os.RemoveAll(old.dir)
	return nil
}

func writeWhole(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, wholeName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}
