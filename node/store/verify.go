package store

import (
	"errors"
	"fmt"
	"time"
)

// verifier is a Table that can check all that it holds. It is optional.
type verifier interface {
	// Verify reads everything; an error says what is damaged.
	Verify() error
}

// verifyLoop checks the table every VerifyEvery. A damaged table can make a record seem absent, and
// with it what the node has promised and accepted: it must not vote any more, nor after a restart.
func (s *Store) verifyLoop(stop <-chan struct{}) {
	v, ok := s.table.(verifier)
	if !ok || s.opts.VerifyEvery <= 0 {
		return
	}
	ticker := time.NewTicker(s.opts.VerifyEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.abort:
			return
		case <-stop:
			return
		}
		if s.failed() != nil {
			return
		}
		started := time.Now()
		err := v.Verify()
		if err == nil {
			s.log.Info("store_table_verified", "duration", time.Since(started))
			continue
		}
		s.fail("verify the table", err)
		if err := s.condemn(); err != nil {
			s.log.Error("store_table_not_condemned", "error", err)
		}
		return
	}
}

// condemn makes the next Open verify the table before anything else.
func (s *Store) condemn() error {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	st, err := readState(s.table)
	if err != nil {
		return err
	}
	st.Damaged = true
	return s.table.Apply([]Row{st.row()})
}

// reverify checks a condemned table. It may be whole after all: the fault may have been in memory.
func (s *Store) reverify(st state) error {
	v, ok := s.table.(verifier)
	if !st.Damaged || !ok {
		return nil
	}
	if err := v.Verify(); err != nil {
		return fmt.Errorf("%w: %w. %s", ErrTableDamaged, err, whatToDo)
	}
	return nil
}

// ErrTableDamaged: the table failed its checksums. Records may be missing from it unseen.
var ErrTableDamaged = errors.New("store: table damaged")
