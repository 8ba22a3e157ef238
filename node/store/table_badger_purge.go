package store

import (
	"errors"

	"github.com/dgraph-io/badger/v4"
)

// rowOverhead is at least what Badger adds to key and value when it counts the bytes of a transaction.
const rowOverhead = 32

// purge deletes key's row and pieces. What Badger does not have leaves no delete marker behind: most
// records that live shorter than the overlay never get here, and neither do their purges.
func (w *badgerWriter) purge(key []byte) error {
	n, found, err := w.present(key)
	if err != nil || !found {
		return err
	}
	if int64(n)+2 >= w.db.MaxBatchCount() {
		n = 0 // no record has so many: the row's length is damaged
	}
	// Row and pieces go in one transaction: a reader finds all of them or none, and a crash in
	// between would leave pieces of which nobody knows.
	need := int64(n+1) * int64(len(key)+rowOverhead+piecePrefixLen)
	if w.rows+int64(n)+2 >= w.db.MaxBatchCount() || w.bytes+need >= w.db.MaxBatchSize() {
		if err := w.next(); err != nil {
			return err
		}
	}
	for i := range n {
		if err := w.remove(pieceKey(key, i)); err != nil {
			return err
		}
	}
	return w.remove(key)
}

// present reports whether key has a row, and how many pieces. A row that cannot be read for damage is
// there, without pieces: they may stay, but the row goes.
func (w *badgerWriter) present(key []byte) (pieces int, found bool, err error) {
	defer func() {
		if panicked(recover()) != nil {
			pieces, found, err = 0, true, nil
		}
	}()
	item, err := w.txn.Get(key)
	switch {
	case errors.Is(err, badger.ErrKeyNotFound):
		return 0, false, nil
	case isDamage(err):
		return 0, true, nil
	case err != nil:
		return 0, false, err
	case item.UserMeta()&metaPieces == 0:
		return 0, true, nil
	}
	n, err := piecesLen(item)
	if isDamage(err) {
		return 0, true, nil
	}
	return w.t.count(n), true, err
}
