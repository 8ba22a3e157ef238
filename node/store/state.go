package store

import (
	"encoding/json"
	"fmt"
)

// The table holds two rows of the store's own, in spaceState.
const (
	appliedKey = "sapplied"
	stateKey   = "sstate"
)

// state is what the table tells of the former run.
type state struct {
	Known bool `json:"known"` // there was one
	Clean bool `json:"clean"`
	// Logging: there must be a log.
	Logging  bool   `json:"logging"`
	Interval bool   `json:"interval"`
	BootID   string `json:"boot_id"`
	// Amnesia lasts over restarts until ClearAmnesia: the boot id differs only the first time.
	Amnesia bool `json:"amnesia"`
	// Damaged: the table failed its verification.
	Damaged bool `json:"damaged,omitempty"`

	applied position
}

// appliedRow says that the table has the log up to pos. As the last row of what is applied, it
// cannot be there before the rest.
func appliedRow(pos position) Row {
	return Row{Key: []byte(appliedKey), Value: sealMeta(appliedKey, pos.append(nil))}
}

func (st state) row() Row {
	text, err := json.Marshal(st)
	if err != nil {
		text = nil // a struct of booleans and a string: cannot be
	}
	return Row{Key: []byte(stateKey), Value: sealMeta(stateKey, text)}
}

func readState(t Table) (st state, err error) {
	text, err := readRow(t, stateKey)
	if err != nil {
		return st, err
	}
	if text != nil {
		if err := json.Unmarshal(text, &st); err != nil {
			return st, fmt.Errorf("store: read %s: %w", stateKey, err)
		}
	}
	applied, err := readRow(t, appliedKey)
	if err == nil && len(applied) == 16 {
		st.applied = positionOf(applied)
	}
	return st, err
}

func readRow(t Table, key string) ([]byte, error) {
	b, found, err := t.Get(nil, []byte(key))
	if err == nil && found {
		b, err = openMeta(key, b)
	}
	if err != nil {
		return nil, fmt.Errorf("store: read %s: %w", key, err)
	}
	if !found {
		return nil, nil
	}
	return b, nil
}

// writeState notes in the table how the run goes.
func (s *Store) writeState(clean bool) error {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	st := state{Known: true, Clean: clean, Logging: !clean, Interval: s.opts.Interval, BootID: s.opts.BootID, Amnesia: s.forgetful}
	if err := s.table.Apply([]Row{st.row()}); err != nil {
		return fmt.Errorf("store: write %s: %w", stateKey, err)
	}
	return nil
}
