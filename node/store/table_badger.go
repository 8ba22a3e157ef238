package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/y"

	"kai/node/record"
)

// BadgerTable is a Table in Badger. Values longer than pieceLen are kept in pieces, so that nothing
// ever goes to Badger's value log (DESIGN.md, "Badger").
type BadgerTable struct {
	opts     Options
	current  atomic.Pointer[database]
	pieceLen int
	// pieces: there is, or was, a value in pieces; only then must Apply look for old ones.
	pieces bool
}

// database is a Badger in use. A table has one, and for a moment two, when one that was built takes the place of the other.
type database struct {
	*badger.DB
	dir   string
	users atomic.Int64
}

// use returns the database that is current, and keeps it open until release.
func (t *BadgerTable) use() *database {
	for {
		db := t.current.Load()
		db.users.Add(1)
		if t.current.Load() == db {
			return db
		}
		db.release()
	}
}

func (db *database) release() { db.users.Add(-1) }

const (
	// metaPieces is the user meta of a row whose value is the length of a value in pieces.
	metaPieces  = 1
	spacePieces = 'p'
	// piecesKey is there as soon as any value was written in pieces.
	piecesKey = "spieces"
)

// OpenBadger opens or creates a table in o.Dir: in table, or where one was built (see Build).
func OpenBadger(o Options) (*BadgerTable, error) {
	dir, err := tableDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("store: table directory: %w", err)
	}
	t, err := openBadger(dir, o)
	if err != nil {
		return nil, fmt.Errorf("store: open table: %w", err)
	}
	return t, nil
}

func openBadger(dir string, o Options) (*BadgerTable, error) {
	if err := removeEmpty(dir); err != nil {
		return nil, err
	}
	bo := badgerOptions(dir, &o)
	db, err := badger.Open(bo)
	if err != nil {
		return nil, err
	}
	t := &BadgerTable{opts: o, pieceLen: pieceLen(bo)}
	t.current.Store(&database{DB: db, dir: dir})
	_, t.pieces, err = t.Get(nil, []byte(piecesKey))
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return t, nil
}

// removeEmpty removes Badger's logs that hold nothing: a process was killed between making one and giving it its size. Badger gives
// them their size then, and refuses to open (its issue 2207).
func removeEmpty(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if ext := filepath.Ext(f.Name()); ext != ".mem" && ext != ".vlog" {
			continue
		}
		if info, err := f.Info(); err != nil {
			return err
		} else if info.Size() > 0 {
			continue
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

func pieceLen(bo badger.Options) int { return int(bo.ValueThreshold) / 2 }

func badgerOptions(dir string, o *Options) badger.Options {
	bo := badger.DefaultOptions(dir).
		WithLogger(badgerLogger{o.Logger}).
		WithMetricsEnabled(false).
		WithDetectConflicts(false).
		WithNumVersionsToKeep(1).
		WithSyncWrites(false).
		WithMemTableSize(o.MemTableBytes).
		WithNumMemtables(o.MemTables).
		WithNumCompactors(2).
		WithValueLogFileSize(1 << 20).
		WithCompression(options.None).
		WithBlockCacheSize(o.BlockCacheBytes).
		WithIndexCacheSize(0).
		// With verification on reads, Badger takes a damaged block for an empty one, and a record in
		// it for absent, or for its older version further down (levelHandler.get drops the error).
		// Without, damaged values come up and fail their own checksum; Verify finds the rest.
		WithChecksumVerificationMode(options.NoVerification)
	// A transaction holds at most 15 % of a memtable, and a value must fit into one.
	return bo.WithValueThreshold(min(1<<20, o.MemTableBytes/10))
}

func (t *BadgerTable) levels() (all []Level) {
	db := t.use()
	defer db.release()
	for _, l := range db.Levels() {
		all = append(all, Level{l.Level, l.NumTables, l.Size, l.Score})
	}
	return all
}

// Get implements Table.
func (t *BadgerTable) Get(dst, key []byte) (value []byte, found bool, err error) {
	db := t.use()
	defer db.release()
	txn := db.NewTransaction(false)
	defer txn.Discard()
	defer func() {
		if err2 := panicked(recover()); err2 != nil {
			value, found, err = dst, false, err2
		}
	}()
	item, err := txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return dst, false, nil
	}
	if err != nil {
		return dst, false, damage(err)
	}
	value, err = t.value(dst, txn, item)
	return value, err == nil, damage(err)
}

// damage marks Badger's checksum errors as what they are to the caller.
func damage(err error) error {
	if errors.Is(err, y.ErrChecksumMismatch) || err != nil && strings.Contains(err.Error(), y.ErrChecksumMismatch.Error()) {
		return fmt.Errorf("%w: %w", record.ErrCorrupt, err)
	}
	return err
}

func isDamage(err error) bool { return errors.Is(damage(err), record.ErrCorrupt) }

// panicked turns the panic of a Badger that stumbles over damaged bytes into an error. It holds no
// lock while it reads blocks, so it can go on.
func panicked(cause any) error {
	if cause == nil {
		return nil
	}
	return fmt.Errorf("%w: reading the table: %v", record.ErrCorrupt, cause)
}

// Verify reads all table files and checks them; an error wraps record.ErrCorrupt or is the disk's.
func (t *BadgerTable) Verify() (err error) {
	defer func() {
		if err2 := panicked(recover()); err2 != nil {
			err = err2
		}
	}()
	db := t.use()
	defer db.release()
	return damage(db.VerifyChecksum())
}

// value appends the value of an item, put together from its pieces if need be.
func (t *BadgerTable) value(dst []byte, txn *badger.Txn, item *badger.Item) ([]byte, error) {
	if item.UserMeta()&metaPieces == 0 {
		err := item.Value(func(v []byte) error {
			dst = append(dst, v...)
			return nil
		})
		return dst, err
	}
	length, err := piecesLen(item)
	if err != nil {
		return dst, err
	}
	start := len(dst)
	for i := range t.count(length) {
		piece, err := txn.Get(pieceKey(item.Key(), i))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return dst[:start], fmt.Errorf("%w: piece %d is missing", record.ErrCorrupt, i)
		}
		if err == nil {
			err = piece.Value(func(v []byte) error {
				dst = append(dst, v...)
				return nil
			})
		}
		if err != nil {
			return dst[:start], err
		}
	}
	if len(dst)-start != length {
		return dst[:start], fmt.Errorf("%w: pieces of a wrong length", record.ErrCorrupt)
	}
	return dst, nil
}

func (t *BadgerTable) count(length int) int { return (length + t.pieceLen - 1) / t.pieceLen }

func piecesLen(item *badger.Item) (n int, err error) {
	err = item.Value(func(v []byte) error {
		if len(v) != 8 {
			return fmt.Errorf("%w: row of a value in pieces", record.ErrCorrupt)
		}
		n = int(binary.LittleEndian.Uint64(v))
		return nil
	})
	return n, err
}

// piecePrefixLen is what a piece's key has besides the row's.
const piecePrefixLen = 3 + 4

// pieceKey: the length of the key keeps the pieces of one key apart from another's.
func pieceKey(key []byte, i int) []byte {
	k := append([]byte{spacePieces, byte(len(key) >> 8), byte(len(key))}, key...)
	return binary.BigEndian.AppendUint32(k, uint32(i))
}

// Scan implements Table. Values are not prefetched: for values within the tree that costs more than
// it brings (measured: 690–980 MB/s without, 300 with).
func (t *BadgerTable) Scan(from, to []byte, fn func(key, value []byte) error) error {
	db := t.use()
	defer db.release()
	txn := db.NewTransaction(false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	var value []byte
	move := func() { it.Seek(from) }
	for {
		key, value2, err := t.next(txn, it, move, to, value[:0])
		if key == nil || err != nil {
			return err
		}
		if err := fn(key, value2); err != nil {
			return err
		}
		value, move = value2, it.Next
	}
}

// next moves the iterator and returns the row it comes to; no key: the end. The caller's function
// runs outside, so that only Badger's panics are caught.
func (t *BadgerTable) next(txn *badger.Txn, it *badger.Iterator, move func(), to, dst []byte) (key, value []byte, err error) {
	defer func() {
		if err2 := panicked(recover()); err2 != nil {
			key, value, err = nil, nil, err2
		}
	}()
	move()
	if !it.Valid() {
		return nil, nil, nil
	}
	item := it.Item()
	if string(item.Key()) >= string(to) {
		return nil, nil, nil
	}
	value, err = t.value(dst, txn, item)
	return item.Key(), value, damage(err)
}

// Close implements Table. It flushes, and takes as long as that takes.
func (t *BadgerTable) Close() error {
	if err := t.current.Load().Close(); err != nil {
		return fmt.Errorf("store: close table: %w", err)
	}
	return nil
}

// badgerLogger turns Badger's talk into log records: its Info is about its insides, thus Debug.
type badgerLogger struct{ log *slog.Logger }

func (l badgerLogger) Errorf(format string, a ...any) { l.log.Error("badger_error", text(format, a)) }
func (l badgerLogger) Warningf(format string, a ...any) {
	l.log.Warn("badger_warning", text(format, a))
}
func (l badgerLogger) Infof(format string, a ...any)  { l.log.Debug("badger_info", text(format, a)) }
func (l badgerLogger) Debugf(format string, a ...any) {}

func text(format string, a []any) slog.Attr {
	return slog.String("text", strings.TrimSpace(fmt.Sprintf(format, a...)))
}
