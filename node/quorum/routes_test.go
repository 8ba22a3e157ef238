package quorum

import (
	"testing"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// set of members, by index.
func members(of ...int) (m mask) {
	for _, i := range of {
		m |= 1 << i
	}
	return m
}

// fake is a replica that is healthy, or not, and no more.
type fake struct{ healthy bool }

func (f *fake) Send(call *message.Call) { answer(call, message.Unreachable) }
func (f *fake) Flush()                  {}
func (f *fake) Healthy() bool           { return f.healthy }

func groupOf(conf ring.Configuration, q ring.Quorum, self ring.NodeID, sick ...ring.NodeID) *Group {
	return newGroup(conf, q, self, func(id ring.NodeID) Replica {
		for _, s := range sick {
			if s == id {
				return &fake{}
			}
		}
		return &fake{healthy: true}
	})
}

// While a partition moves, every quorum is one of the old and one of the new members.
func TestQuorums(t *testing.T) {
	stable := ring.Configuration{Epoch: 1, Members: ids[:3]}
	joint := ring.Configuration{Epoch: 2, Members: ids[:3], Next: []ring.NodeID{"c", "d", "e"}}
	shrink := ring.Configuration{Epoch: 2, Members: ids[:2], Next: ids[:3]} // growing to N
	for _, c := range []struct {
		name          string
		conf          ring.Configuration
		q             ring.Quorum
		m             mask
		reads, writes bool
	}{
		{"one", stable, majority, members(1), false, false},
		{"two", stable, majority, members(0, 2), true, true},
		{"3:1:3, one", stable, ring.Quorum{N: 3, R: 1, W: 3}, members(1), true, false},
		{"3:1:3, all", stable, ring.Quorum{N: 3, R: 1, W: 3}, members(0, 1, 2), true, true},
		{"old alone", joint, majority, members(0, 1), false, false},
		{"new alone", joint, majority, members(3, 4), false, false},
		{"old and half of new", joint, majority, members(0, 1, 3), false, false},
		{"old and new", joint, majority, members(0, 1, 3, 4), true, true},
		{"one counts for both", joint, majority, members(0, 2, 3), true, true},
		{"two nodes need both", shrink, majority, members(0, 2), false, false},
		{"two nodes, both", shrink, majority, members(0, 1), true, true},
	} {
		g := groupOf(c.conf, c.q, "a")
		if g.reads(c.m) != c.reads || g.writes(c.m) != c.writes {
			t.Errorf("%s: reads %v, writes %v", c.name, g.reads(c.m), g.writes(c.m))
		}
	}
}

// In a joint configuration a mutation needs both quorums, and so does a read.
func TestJointConfiguration(t *testing.T) {
	for _, c := range []struct {
		name string
		down []int
		set  record.Status
		get  record.Status
	}{
		{"all there", nil, record.Stored, record.Found},
		{"one of each missing", []int{1, 3}, record.Stored, record.Found},
		{"no quorum of old", []int{1, 2}, record.Unknown, record.Unavailable},
		{"no quorum of new", []int{3, 4}, record.Unknown, record.Unavailable},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, 5, majority)
			conf := ring.Configuration{Epoch: 2, Members: ids[:3], Next: []ring.NodeID{"c", "d", "e"}}
			for i := range r.nodes {
				r.adopt(i, conf)
				r.route(i, conf)
			}
			r.want(c.name, r.do(0, set("v")), record.Stored, "")
			r.each(0, c.down, func(w *wire) { w.answer(message.TimedOut) })
			value := map[record.Status]string{record.Found: "w"}[c.get]
			r.want(c.name+": set", r.do(0, set("w")), c.set, "")
			r.want(c.name+": get", r.do(0, get()), c.get, value)
		})
	}
}

// Oneself first, then the healthy, the near ones first, beginning at different places; the sick only when nobody is left.
func TestPick(t *testing.T) {
	conf := ring.Configuration{Epoch: 1, Members: ids[:3]}
	for _, c := range []struct {
		name  string
		self  ring.NodeID
		sick  []ring.NodeID
		asked mask
		near  mask
		hash  uint64
		want  int
	}{
		{"itself", "b", nil, 0, 0, 2, 1},
		{"itself without a vote", "b", []ring.NodeID{"b"}, 0, 0, 0, 0},
		{"the next one", "b", nil, members(1), 0, 0, 0},
		{"spread 0", "z", nil, 0, 0, 0, 0},
		{"spread 1", "z", nil, 0, 0, 1, 1},
		{"spread 2", "z", nil, 0, 0, 2, 2},
		{"around", "z", nil, members(2), 0, 2, 0},
		{"over the sick", "z", []ring.NodeID{"a"}, 0, 0, 0, 1},
		{"only the sick are left", "z", []ring.NodeID{"a"}, members(1, 2), 0, 1, 0},
		{"nobody is left", "b", nil, members(0, 1, 2), 0, 0, -1},
		{"itself, not the near", "b", nil, 0, members(0), 0, 1},
		{"the near", "z", nil, 0, members(1), 0, 1},
		{"the near, around", "z", nil, 0, members(0), 1, 0},
		{"the near was asked", "z", nil, members(1), members(1), 0, 0},
		{"the near is sick", "z", []ring.NodeID{"b"}, 0, members(1), 0, 0},
		{"the near is sick, and all that is left", "z", []ring.NodeID{"b"}, members(0, 2), members(1), 0, 1},
	} {
		if got := groupOf(conf, majority, c.self, c.sick...).pick(c.asked, c.near, c.hash); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestFavoured(t *testing.T) {
	conf := ring.Configuration{Epoch: 1, Members: ids[:3]}
	for _, c := range []struct {
		name  string
		sick  []ring.NodeID
		tried mask
		want  int
	}{
		{"the first", nil, 0, 0},
		{"the first healthy", []ring.NodeID{"a"}, 0, 1},
		{"the next", nil, members(0), 1},
		{"all sick", ids[:3], 0, 0},
		{"all sick, one tried", ids[:3], members(0), 1},
		{"all tried", nil, members(0, 1, 2), -1},
	} {
		if got := groupOf(conf, majority, "z", c.sick...).favoured(c.tried); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// Partitions with equal configurations share a group, and a node is asked for once.
func TestRoutesShareGroups(t *testing.T) {
	abc, bcd := ring.Configuration{Epoch: 1, Members: ids[:3]}, ring.Configuration{Epoch: 1, Members: ids[1:4]}
	later := ring.Configuration{Epoch: 2, Members: ids[:3]}
	links := map[ring.NodeID]int{}
	r := NewRoutes([]ring.Configuration{abc, bcd, abc, later, {Epoch: 1}}, majority, "b", func(id ring.NodeID) Replica {
		links[id]++
		return &fake{}
	})
	if r.group(0) != r.group(2) || r.group(0) == r.group(1) || r.group(0) == r.group(3) {
		t.Error("shared what differs, or did not share what is equal")
	}
	for id, n := range links {
		if n != 1 {
			t.Errorf("asked for %s %d times", id, n)
		}
	}
	if g := r.group(1); g.self != 0 || len(g.members) != 3 || r.group(4).self != -1 {
		t.Errorf("%+v", g)
	}
}

// With changes one partition, keeps what it came from, and heeds epochs.
func TestRoutesWith(t *testing.T) {
	const partitions = 1024
	confs := make([]ring.Configuration, partitions)
	for p := range confs {
		confs[p] = ring.Configuration{Epoch: 1, Members: ids[p%2 : p%2+3]}
	}
	link := func(ring.NodeID) Replica { return &fake{} }
	first := NewRoutes(confs, majority, "b", link)
	r := first
	joint := ring.Configuration{Epoch: 2, Members: ids[:3], Next: ids[1:4]}
	for _, p := range []ring.Partition{0, 255, 256, 700, 1023, 254} {
		next := r.With(p, joint, link)
		if r.group(p).conf.Epoch != 1 || !next.group(p).conf.Equal(joint) {
			t.Fatalf("partition %d: epoch %d became %d", p, r.group(p).conf.Epoch, next.group(p).conf.Epoch)
		}
		confs[p] = joint
		r = next
	}
	for p := range ring.Partition(partitions) {
		if g := r.group(p); !g.conf.Equal(confs[p]) || g.self < 0 || g.quorum != majority {
			t.Errorf("partition %d: %+v", p, g)
		}
	}
	if r.group(254) != r.group(255) {
		t.Error("equal configurations of a page do not share their group")
	}
	if g := r.group(700); len(g.members) != 4 || g.old != 0b0111 || g.new != 0b1110 {
		t.Errorf("%+v", g)
	}
	for epoch := range uint32(3) {
		if r.With(0, ring.Configuration{Epoch: epoch, Members: ids[:1]}, link) != r {
			t.Errorf("epoch %d taken after 2", epoch)
		}
	}
}

func TestUnfounded(t *testing.T) {
	c := New(Options{Timeout: timeout, Wall: wall})
	s := c.Session()
	res := make([]record.Result, 2)
	s.Execute([]record.Op{get(), set("v")}, res)
	for _, r := range res {
		if r.Status != record.Unavailable || r.Detail != detailNF {
			t.Errorf("%+v", r)
		}
	}
	if n := c.Unreachable(); n != 0 {
		t.Errorf("%d partitions unreachable of none", n)
	}
}

func TestUnreachable(t *testing.T) {
	sick := map[ring.NodeID]bool{"c": true, "d": true}
	c := New(Options{Timeout: timeout, Wall: wall})
	abc, bcd := ring.Configuration{Epoch: 1, Members: ids[:3]}, ring.Configuration{Epoch: 1, Members: ids[1:4]}
	c.SetRoutes(NewRoutes([]ring.Configuration{abc, bcd, bcd, abc}, majority, "a", func(id ring.NodeID) Replica {
		return &fake{healthy: !sick[id]}
	}))
	if n := c.Unreachable(); n != 2 {
		t.Errorf("%d partitions, want 2", n)
	}
}
