package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// badgerWriter fills transactions with rows, and makes each durable before the next.
//
// Badger's Sync covers the active memtable only: of one that was rotated but not yet flushed, the
// last writes may be lost with the power (discussion in DESIGN.md). Only a commit rotates, at its
// start. So when every commit is followed by a Sync before the next, all rotated memtables were
// synced in full.
type badgerWriter struct {
	t   *BadgerTable
	db  *database // of t; it stays while rows are applied
	txn *badger.Txn
	// rows and bytes are at least what txn holds, as Badger counts.
	rows, bytes int64
}

// Apply implements Table. A value in pieces is written pieces first, its row last.
func (t *BadgerTable) Apply(rows []Row) error {
	db := t.use()
	defer db.release()
	w := badgerWriter{t: t, db: db, txn: db.NewTransaction(true)}
	defer func() { w.txn.Discard() }()
	for _, r := range rows {
		if err := w.row(r); err != nil {
			return fmt.Errorf("store: write table: %w", err)
		}
	}
	if err := w.commit(); err != nil {
		return fmt.Errorf("store: write table: %w", err)
	}
	return nil
}

func (w *badgerWriter) row(r Row) error {
	if r.Delete {
		return w.purge(r.Key)
	}
	inPieces := len(r.Value) > w.t.pieceLen
	if inPieces && !w.t.pieces {
		if err := w.set(badger.NewEntry([]byte(piecesKey), nil)); err != nil {
			return err
		}
		w.t.pieces = true
	}
	old, err := w.oldPieces(r.Key)
	if err != nil {
		return err
	}
	n := 0
	e := badger.NewEntry(r.Key, r.Value)
	if inPieces {
		n = w.t.count(len(r.Value))
		for i := range n {
			end := min((i+1)*w.t.pieceLen, len(r.Value))
			if err := w.set(badger.NewEntry(pieceKey(r.Key, i), r.Value[i*w.t.pieceLen:end])); err != nil {
				return err
			}
		}
		e = badger.NewEntry(r.Key, binary.LittleEndian.AppendUint64(nil, uint64(len(r.Value)))).WithMeta(metaPieces)
	}
	if err := w.set(e); err != nil {
		return err
	}
	for i := n; i < old; i++ {
		if err := w.remove(pieceKey(r.Key, i)); err != nil {
			return err
		}
	}
	return nil
}

// oldPieces is the number of pieces that key's present value has.
func (w *badgerWriter) oldPieces(key []byte) (int, error) {
	if !w.t.pieces {
		return 0, nil
	}
	item, err := w.txn.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil || item.UserMeta()&metaPieces == 0 {
		return 0, err
	}
	n, err := piecesLen(item)
	return w.t.count(n), err
}

func (w *badgerWriter) set(e *badger.Entry) error {
	return w.try(len(e.Key)+len(e.Value), func() error { return w.txn.SetEntry(e) })
}

func (w *badgerWriter) remove(key []byte) error {
	return w.try(len(key), func() error { return w.txn.Delete(key) })
}

// try does one write of n bytes, in the next transaction if this one is full.
func (w *badgerWriter) try(n int, write func() error) error {
	err := write()
	if errors.Is(err, badger.ErrTxnTooBig) {
		if err := w.next(); err != nil {
			return err
		}
		err = write()
	}
	w.rows, w.bytes = w.rows+1, w.bytes+int64(n+rowOverhead)
	return err
}

// next commits the transaction and begins another.
func (w *badgerWriter) next() error {
	if err := w.commit(); err != nil {
		return err
	}
	w.txn, w.rows, w.bytes = w.db.NewTransaction(true), 0, 0
	return nil
}

func (w *badgerWriter) commit() error {
	if err := w.txn.Commit(); err != nil {
		return err
	}
	if err := w.db.Sync(); err != nil {
		return err
	}
	// Badger syncs its directory when it makes memtables' logs and flushes them only by chance of
	// the file system.
	return syncDir(w.db.dir)
}
