package placement

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/message"
	"kai/node/ring"
)

// teller is a node that answers by a table of its own.
type teller struct {
	table *Table
	down  atomic.Bool
	old   atomic.Bool // a build that knows of no moves
	calls atomic.Int64
	bytes atomic.Int64 // of questions and answers
	asked atomic.Int64 // partitions, by their epochs
}

func (o *teller) Send(call *message.Call) {
	o.calls.Add(1)
	if o.down.Load() {
		call.Reply = message.Reply{Status: message.Unreachable}
	} else if o.old.Load() {
		call.Reply = message.Reply{Status: message.Unsupported}
	} else if call.Kind == message.Configurations {
		o.asked.Add(int64(len(call.Request.Items) / 4))
		Newer(call, o.table.Partitions(), o.table.Configuration)
	} else {
		Differing(call, o.table.Partitions(), o.table.Configuration)
	}
	o.bytes.Add(int64(len(call.Request.Items) + len(call.Reply.Items)))
	call.Completion.Done(call)
}
func (o *teller) Flush()        {}
func (o *teller) Healthy() bool { return !o.down.Load() }

func newTable(t *testing.T) *Table {
	f := founding("a", "b", "c")
	table, err := New(f, Configurations(f), nil)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// A node that knows only the founding learns what happened since, and plans nothing before every live
// node has told it all.
func TestMoverLearnsBeforeItPlans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, other := newTable(t), &teller{table: newTable(t)}
		for p := range ring.Partition(64) {
			other.table.Adopt(p, ring.Configuration{Epoch: 5 + uint32(p), Members: []ring.NodeID{"b", "c"}})
		}
		away := &teller{table: newTable(t)}
		away.down.Store(true)
		peers := map[ring.NodeID]Replica{"b": other, "c": away}
		var planned atomic.Int32
		m := NewMover(Options{
			Self: "a", Partitions: 64, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Configuration: own.Configuration,
			Adopt: func(p ring.Partition, c ring.Configuration) { own.Adopt(p, c) },
			Peer:  func(id ring.NodeID) Replica { return peers[id] },
			Plan: func(current []ring.Configuration) [][]ring.NodeID {
				planned.Add(1)
				for p, c := range current {
					if c.Epoch != 5+uint32(p) {
						t.Errorf("partition %d is planned at epoch %d", p, c.Epoch)
					}
				}
				return nil
			},
			Everybody: func() []ring.NodeID { return []ring.NodeID{"a", "b", "c"} },
			Moves:     1, Timeout: time.Second, Tick: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		})
		go func() { _ = m.Run(t.Context()) }() // nil: it ends with the context
		time.Sleep(5 * time.Second)
		if got := own.Configuration(63).Epoch; got != 5+63 {
			t.Errorf("epoch %d after 5 s", got)
		}
		if planned.Load() != 0 {
			t.Errorf("planned %d times while a live node had told nothing", planned.Load())
		}
		away.down.Store(false)
		time.Sleep(5 * time.Second)
		if planned.Load() == 0 {
			t.Error("never planned")
		}
	})
}

// As long as a node is of a build that knows of no moves nothing is planned; it is asked now and then.
func TestNothingMovesBesideAnOlderBuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, older, other := newTable(t), &teller{table: newTable(t)}, &teller{table: newTable(t)}
		older.old.Store(true)
		peers := map[ring.NodeID]Replica{"b": older, "c": other}
		var planned atomic.Int32
		m := NewMover(Options{
			Self: "a", Partitions: 64, Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Configuration: own.Configuration,
			Adopt:     func(p ring.Partition, c ring.Configuration) { own.Adopt(p, c) },
			Peer:      func(id ring.NodeID) Replica { return peers[id] },
			Plan:      func([]ring.Configuration) [][]ring.NodeID { planned.Add(1); return nil },
			Everybody: func() []ring.NodeID { return []ring.NodeID{"a", "b", "c"} },
			Moves:     1, Timeout: time.Second, Tick: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		})
		go func() { _ = m.Run(t.Context()) }() // nil: it ends with the context
		time.Sleep(20 * time.Second)
		if planned.Load() != 0 || older.calls.Load() < 5 || older.calls.Load() > 20 || other.calls.Load() < 5 {
			t.Errorf("planned %d times; the older node was asked %d times, the other %d", planned.Load(), older.calls.Load(), other.calls.Load())
		}
		older.old.Store(false) // it is upgraded
		time.Sleep(5 * time.Second)
		if planned.Load() == 0 {
			t.Error("never planned")
		}
	})
}

// Most of the time nothing is new, and where something is, only its group is looked at, whoever is ahead.
func TestLearnAsksOnlyWhereEpochsDiffer(t *testing.T) {
	const partitions = 1 << 16
	f := founding("a", "b", "c")
	f.Partitions = partitions
	confs := Configurations(f)
	fresh := func() *Table {
		table, err := New(f, slices.Clone(confs), nil)
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	for _, c := range []struct {
		name        string
		ahead       []ring.Partition // there
		behind      []ring.Partition // here ahead
		asked, most int64
		all         bool
	}{
		{name: "nothing", most: 2048, all: true},
		{name: "one", ahead: []ring.Partition{300}, asked: 256, most: 2048 + 2 + 1024 + 128},
		{name: "here newer", behind: []ring.Partition{65535}, asked: 256, most: 2048 + 2 + 1024, all: true},
		{name: "sums alike", ahead: []ring.Partition{1}, behind: []ring.Partition{2}, asked: 256, most: 4096},
		{name: "two groups side by side, one apart", ahead: []ring.Partition{0, 511, 40000}, asked: 768, most: 2048 + 6 + 3072 + 3*128},
	} {
		own, other := fresh(), &teller{table: fresh()}
		raise := func(table *Table, ps []ring.Partition) {
			for _, p := range ps {
				table.Adopt(p, ring.Configuration{Epoch: 2, Members: []ring.NodeID{"b", "c"}})
			}
		}
		raise(other.table, c.ahead)
		raise(own, c.behind)
		m := NewMover(Options{
			Self: "a", Partitions: partitions, Configuration: own.Configuration, Timeout: time.Second,
			Adopt: func(p ring.Partition, c ring.Configuration) { own.Adopt(p, c) },
			Peer:  func(ring.NodeID) Replica { return other },
		})
		all, err := m.learnFrom("b")
		if err != nil || all != c.all {
			t.Errorf("%s: all %v, %v", c.name, all, err)
		}
		for _, p := range c.ahead {
			if own.Configuration(p).Epoch != 2 {
				t.Errorf("%s: partition %d was not learnt", c.name, p)
			}
		}
		if other.asked.Load() != c.asked || other.bytes.Load() > c.most {
			t.Errorf("%s: %d partitions asked for, want %d; %d bytes, at most %d", c.name, other.asked.Load(), c.asked, other.bytes.Load(), c.most)
		}
		if all, err := m.learnFrom("b"); err != nil || !all {
			t.Errorf("%s: the second time: %v, %v", c.name, all, err)
		}
	}
}

func TestDifferingRefusesNonsense(t *testing.T) {
	table := newTable(t)
	for _, n := range []int{0, 7, 16} { // 64 partitions are one group
		call := &message.Call{Request: message.Request{Kind: message.Digests, Items: make([]byte, n)}}
		if Differing(call, 64, table.Configuration); call.Reply.Status != message.Invalid {
			t.Errorf("%d bytes: %s", n, call.Reply.Status)
		}
	}
}

func TestNewerRefusesNonsense(t *testing.T) {
	table := newTable(t)
	for name, q := range map[string]message.Request{
		"half an epoch": {Items: make([]byte, 6)},
		"too many":      {Items: make([]byte, 4*65)},
		"beyond":        {Partition: 64, Items: make([]byte, 4)},
		"far beyond":    {Partition: 1<<32 - 1, Items: make([]byte, 4)},
	} {
		call := &message.Call{Request: q}
		if Newer(call, 64, table.Configuration); call.Reply.Status != message.Invalid {
			t.Errorf("%s: %s", name, call.Reply.Status)
		}
	}
}

func TestAdoptAllRefusesNonsense(t *testing.T) {
	m := NewMover(Options{Partitions: 64, Adopt: func(ring.Partition, ring.Configuration) {}})
	good := func(p uint32) []byte {
		enc := AppendConfiguration(nil, ring.Configuration{Epoch: 2, Members: []ring.NodeID{"a"}})
		b := binary.LittleEndian.AppendUint32(nil, p)
		return append(binary.LittleEndian.AppendUint16(b, uint16(len(enc))), enc...)
	}
	if err := m.adoptAll(append(good(1), good(63)...)); err != nil {
		t.Error(err)
	}
	if err := m.adoptAll(good(64)); err == nil {
		t.Error("partition 64 of 64 taken")
	}
	for cut := 1; cut < len(good(1)); cut++ {
		if err := m.adoptAll(good(1)[:cut]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut after %d bytes: %v", cut, err)
		}
	}
}
