package store

import (
	"kai/node/record"
	"kai/node/ring"
)

// Purge stages the removal of key's record, as Put does a write: same log, same order, same durability,
// same completion, same errors. Once it is committed the key is not found, until a later Put of it. It
// takes little space and, when it comes to the table, gives back what the record took. A key that is
// not there may be purged. key is copied.
//
// A full disk refuses it later than it does Put: it may use a part of the reserve.
func (s *Store) Purge(p ring.Partition, hash uint64, key []byte, done interface{ Committed(error) }) {
	if len(key) > record.MaxInternalKey {
		done.Committed(ErrTooLarge)
		return
	}
	s.stage(entry{kind: kindPurge, p: p, hash: hash, key: key}, done)
}

// purgesWait reports whether there are purges that have not come to the table yet.
func (s *Store) purgesWait() bool { return s.counts.purges.Load() > s.counts.purged.Load() }

// hastenPurges gives the applier the purges of the chunk being filled, if the disk is full: nothing else
// may come that fills it. It runs on the committer: only there is it sure that whatever is published is
// in the index, without which the applier would take the newest entry of a key for an old one.
func (s *Store) hastenPurges() {
	if !s.noSpace.Load() || !s.purgesWait() {
		return
	}
	if c := s.tail.leave(); c != nil {
		s.liveMu.Lock()
		s.seal(c)
		s.liveMu.Unlock()
	}
	signal(s.applyWake)
}
