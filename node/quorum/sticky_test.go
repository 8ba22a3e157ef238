package quorum

import (
	"testing"

	"kai/node/record"
)

func TestStickyTable(t *testing.T) {
	var s sticky
	s.init(16)
	ballot := func(epoch uint32, stamp int) record.Ballot {
		return record.Ballot{Epoch: epoch, Stamp: record.Stamp(stamp)}
	}
	hash := func(i int) uint64 { return uint64(i * len(s.buckets)) } // all in bucket 0, that of hash 0 too
	for i := range 5 {
		s.put(hash(i), ballot(2, 10*i+1), ballot(2, 10*i+2))
	}
	s.put(hash(1), ballot(2, 91), ballot(2, 92)) // written again, in its place
	if _, _, ok := s.take(hash(0)); ok {
		t.Error("the key written least recently is still there")
	}
	for i, want := range map[int]int{1: 91, 2: 21, 3: 31, 4: 41} {
		acc, next, ok := s.take(hash(i))
		if !ok || acc != ballot(2, want) || next != ballot(2, want+1) {
			t.Errorf("key %d: %v %v %v", i, acc, next, ok)
		}
		if _, _, ok := s.take(hash(i)); ok {
			t.Errorf("key %d: a ballot for twice", i)
		}
	}
	s.put(hash(1), ballot(1, 5), ballot(2, 6))
	if _, _, ok := s.take(hash(1)); ok {
		t.Error("the shortcut outlived its epoch")
	}
}
