package record

import (
	"testing"
	"time"
)

func TestStampsKeepTimeAndSlot(t *testing.T) {
	at := time.Date(2031, 5, 6, 7, 8, 9, 123456000, time.UTC)
	s := NewStamp(Ticks(at), 513)
	if s.Slot() != 513 || s.Ticks() != Ticks(at) || !s.Time().Equal(at.Truncate(Unit)) {
		t.Errorf("%v %d, want %v 513", s.Time(), s.Slot(), at)
	}
	if Ticks(at.Add(Unit)) != Ticks(at)+1 {
		t.Error("a unit is not a tick")
	}
}

func TestStampsStayInTheirBits(t *testing.T) {
	if s := NewStamp(1<<60, ^uint16(0)); s.Ticks() != maxTicks || s>>63 != 0 {
		t.Errorf("%x", uint64(s))
	}
	if got := Ticks(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)); got != maxTicks {
		t.Errorf("ticks of 2100: %d", got)
	}
	if got := Ticks(time.Date(2024, 12, 31, 23, 59, 59, 0, time.UTC)); got != 0 {
		t.Errorf("ticks before the epoch: %d", got)
	}
	if last := NewStamp(maxTicks, 0).Time(); last.Year() != 2060 {
		t.Errorf("stamps end in %v", last)
	}
}

func TestBallotsOrderByEpochFirst(t *testing.T) {
	sorted := []Ballot{{}, {0, 1}, {1, 0}, {1, NewStamp(5, 1)}, {1, NewStamp(5, 2)}, {1, NewStamp(6, 0)}, {2, 0}, {2, 1}}
	for i, a := range sorted {
		for j, b := range sorted {
			if a.Less(b) != (i < j) || (a.Compare(b) < 0) != (i < j) || (a.Compare(b) == 0) != (i == j) {
				t.Errorf("%v against %v: Less %v, Compare %d", a, b, a.Less(b), a.Compare(b))
			}
		}
		if a.IsZero() != (i == 0) {
			t.Errorf("%v is zero: %v", a, a.IsZero())
		}
	}
	if s := (Ballot{3, NewStamp(4, 5)}).String(); s != "3.4@5" {
		t.Error(s)
	}
}
