package placement

import (
	"slices"
	"strings"
	"testing"

	"kai/node/ring"
)

func ids(s string) []ring.NodeID {
	var all []ring.NodeID
	for _, f := range strings.Fields(s) {
		all = append(all, ring.NodeID(f))
	}
	return all
}

func TestLost(t *testing.T) {
	three := ring.Quorum{N: 3, R: 2, W: 2}
	for _, c := range []struct {
		name                  string
		q                     ring.Quorum
		members, next         string
		gone, away            string
		survivors, awaited    string
		lost, notAcknowledged bool
	}{
		{name: "all are there", q: three, members: "a b c"},
		{name: "one of three gone", q: three, members: "a b c", gone: "c"},
		{name: "two away for a moment", q: three, members: "a b c", away: "b c"},
		{name: "one gone, one away: that one may come back", q: three, members: "a b c", gone: "b", away: "c"},
		{name: "two gone", q: three, members: "a b c", gone: "a c", survivors: "b", lost: true},
		{name: "all gone", q: three, members: "a b c", gone: "a b c", lost: true},
		{name: "two gone, the last away", q: three, members: "a b c", gone: "a b", away: "c", awaited: "c", lost: true},
		{name: "one of one gone", q: three, members: "a", gone: "a", lost: true},
		{name: "one of two gone: a majority of two is two", q: three, members: "a b", gone: "a", survivors: "b", lost: true, notAcknowledged: true},
		{name: "W of all: one gone stops writes, and all that counted is at the others", q: ring.Quorum{N: 3, R: 1, W: 3}, members: "a b c", gone: "a", survivors: "b c", lost: true, notAcknowledged: true},
		{name: "a move with a quorum on both sides", q: three, members: "a b c", next: "a b d", gone: "d"},
		{name: "a move whose new nodes are gone", q: three, members: "a b c", next: "a d e", gone: "d e", survivors: "a b c", lost: true},
		{name: "a move whose old nodes are gone", q: three, members: "a b c", next: "a d e", gone: "b c", survivors: "a d e", lost: true},
		{name: "a move whose new nodes are away", q: three, members: "a b c", next: "a d e", away: "d e"},
	} {
		gone, away := ids(c.gone), ids(c.away)
		l, lost := Lost(ring.Configuration{Epoch: 4, Members: ids(c.members), Next: ids(c.next)}, c.q,
			func(id ring.NodeID) bool { return slices.Contains(gone, id) },
			func(id ring.NodeID) bool { return !slices.Contains(gone, id) && !slices.Contains(away, id) })
		if lost != c.lost || !slices.Equal(l.Survivors, ids(c.survivors)) || !slices.Equal(l.Awaited, ids(c.awaited)) || lost && l.Acknowledged == c.notAcknowledged {
			t.Errorf("%s: %v %+v", c.name, lost, l)
		}
	}
}

func TestRecoveredEpochs(t *testing.T) {
	first, ok := RecoveredEpoch(57, 3)
	if !ok || Generation(first) != 1 || Generation(57) != 0 {
		t.Fatal(first, ok)
	}
	if rival, _ := RecoveredEpoch(99, 4); rival <= first+200 || Generation(rival) != 1 {
		t.Errorf("%d and its rival %d", first, rival)
	}
	if again, ok := RecoveredEpoch(first+40, 0); !ok || Generation(again) != 2 || again <= first {
		t.Error(again, ok)
	}
	last := uint32(255) << generationShift
	if _, ok := RecoveredEpoch(last, 65534); ok {
		t.Error("a generation beyond the last")
	}
	if highest, ok := RecoveredEpoch(last-1, 65534); !ok || Generation(highest) != 255 {
		t.Error(highest, ok)
	}
}

// What a survivor holds must be at every read quorum.
func TestMustGather(t *testing.T) {
	three, seven := ring.Quorum{N: 3, R: 2, W: 2}, ring.Quorum{N: 7, R: 4, W: 4}
	for _, c := range []struct {
		q               ring.Quorum
		survivors, next string
		want            bool
	}{
		{three, "a", "a", false}, {three, "a b", "a b", false}, {three, "", "d", false},
		{seven, "a b c", "a b c", true}, {three, "a d e", "a d e", true}, {three, "a b c d", "a b c", true},
	} {
		if got := mustGather(c.q, ids(c.survivors), ids(c.next)); got != c.want {
			t.Errorf("%s: %s to %s: %v", c.q, c.survivors, c.next, got)
		}
	}
}
