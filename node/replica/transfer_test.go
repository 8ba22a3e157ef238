package replica

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Scan implements Scanner; the tests' disk has one partition.
func (d *disk) Scan(_ ring.Partition, after []byte, fn func(key, enc []byte) error) error {
	d.mu.Lock()
	var keys []string
	for k := range d.records {
		if k > string(after) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	records := map[string][]byte{}
	for _, k := range keys {
		records[k] = d.records[k]
	}
	d.mu.Unlock()
	for _, k := range keys {
		if err := fn([]byte(k), records[k]); err != nil {
			return err
		}
	}
	return d.broken
}

var joint = ring.Configuration{Epoch: 2, Members: []ring.NodeID{self, "other"}, Next: []ring.NodeID{"other", "new"}}

func (r *rig) transfer(epoch uint32, after string) *asked {
	a := &asked{Call: message.Call{Request: message.Request{Kind: message.Transfer, Epoch: epoch, Key: []byte(after)}}}
	a.Completion = a
	r.Send(&a.Call)
	return a
}

func keysOf(t *testing.T, page []byte) (keys []string, more bool) {
	rows, more, ok := message.OpenPage(page)
	for ok && len(rows) > 0 {
		var key []byte
		if key, _, rows, ok = message.NextRow(rows); ok {
			keys = append(keys, string(key))
		}
	}
	if !ok {
		t.Fatal("bad page")
	}
	return keys, more
}

func TestTransferGivesAllInPages(t *testing.T) {
	r := newRig(t, newDisk())
	const n = 700
	for i := range n {
		k := fmt.Appendf(nil, "key%04d", i)
		r.disk.records[string(k)] = record.Append(nil, k, &record.Record{Ballot: ballot(3), Kind: record.Value, Version: 1, CAS: 1, Value: bytes.Repeat([]byte("v"), 1000)})
	}
	r.configure(joint)
	var got []string
	after := ""
	for pages := 1; ; pages++ {
		a := r.transfer(2, after)
		r.settle()
		if a.Reply.Status != message.OK {
			t.Fatalf("page %d: %s", pages, a.Reply.Status)
		}
		keys, more := keysOf(t, a.Reply.Items)
		got = append(got, keys...)
		if !more {
			if pages < 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		after = keys[len(keys)-1]
	}
	if len(got) != n || !slices.IsSorted(got) {
		t.Errorf("%d keys of %d", len(got), n)
	}
}

func TestTransferIsForMovesOnly(t *testing.T) {
	r := newRig(t, newDisk())
	for name, c := range map[string]struct {
		conf  ring.Configuration
		epoch uint32
		want  message.Status
	}{
		"stable":       {ring.Configuration{Epoch: 1, Members: []ring.NodeID{self}}, 1, message.NotReplica},
		"another move": {joint, 3, message.WrongEpoch},
		"itself new":   {ring.Configuration{Epoch: 2, Members: []ring.NodeID{"other"}, Next: []ring.NodeID{self}}, 2, message.NotReplica},
	} {
		r.table.conf = c.conf
		r.parts[0].serves.Store(0)
		r.cleans.done[0].Store(c.epoch)
		if a := r.transfer(c.epoch, ""); a.Reply.Status != c.want {
			t.Errorf("%s: %s, want %s", name, a.Reply.Status, c.want)
		}
	}
}

// A write of the old epoch that was admitted before the move, and is not durable yet when the move is
// adopted, is in the page: it may count for a quorum of the old epoch.
func TestTransferWaitsForWritesOfTheOldEpoch(t *testing.T) {
	d := newDisk()
	r := newRig(t, d)
	d.hold = true
	w := r.accept(ballot(3), record.Ballot{}, "v")
	r.table.conf = joint // as if adopted just now
	r.parts[0].serves.Store(0)
	a := r.transfer(2, "")
	for len(stagedNames(d)) < 2 { // the write and the mark behind it
	}
	if a.answers != 0 {
		t.Fatal("answered before the old write was durable")
	}
	d.release(nil)
	r.Replica.waitDisk()
	if keys, _ := keysOf(t, a.Reply.Items); w.answers != 1 || !slices.Equal(keys, []string{string(key)}) {
		t.Errorf("write answered %d times; page has %q", w.answers, keys)
	}
	// And none comes after it.
	late := r.accept(ballot(4), record.Ballot{}, "late")
	r.want("write of the old epoch", late, message.WrongEpoch, record.Ballot{}, nil)
}

func stagedNames(d *disk) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.order)
}

func (r *Replica) waitDisk() { (&rig{Replica: r}).settle() }

func (r *rig) learn(b record.Ballot, value string, epoch uint32) *asked {
	q := message.Request{Kind: message.Accept, Epoch: epoch, Hash: ring.Hash(key), Key: key, Record: encoded(b, value)}
	a := &asked{Call: message.Call{Request: q}}
	a.Completion = a
	r.Learn(&a.Call)
	return a
}

func TestLearn(t *testing.T) {
	r := newRig(t, newDisk())
	r.configure(ring.Configuration{Epoch: 2, Members: []ring.NodeID{"other"}, Next: []ring.NodeID{self}})
	read := func() *asked { return r.ask(message.Request{Kind: message.Read, Epoch: 2}) }
	r.want("learn", r.learn(ballot(5), "five", 2), message.OK, record.Ballot{}, nil)
	r.want("read", read(), message.OK, ballot(5), encoded(ballot(5), "five"))
	r.want("older", r.learn(ballot(4), "four", 2), message.OK, record.Ballot{}, nil)
	r.want("read", read(), message.OK, ballot(5), encoded(ballot(5), "five"))
	// No promise stands against it.
	r.ask(message.Request{Kind: message.Prepare, Epoch: 2, Ballot: ballotIn(2, 1)})
	r.want("below a promise", r.learn(ballot(6), "six", 2), message.OK, record.Ballot{}, nil)
	r.want("read", read(), message.OK, ballot(6), encoded(ballot(6), "six"))
	// Nor does it break one.
	r.want("accept below the promise", r.ask(message.Request{Kind: message.Accept, Epoch: 2, Record: encoded(ballot(7), "seven")}),
		message.Nack, ballotIn(2, 1), nil)
	r.want("another epoch", r.learn(ballot(8), "eight", 1), message.WrongEpoch, record.Ballot{}, nil)
}

func TestPulledSurvivesRestarts(t *testing.T) {
	d := newDisk()
	r := newRig(t, d)
	r.configure(ring.Configuration{Epoch: 2, Members: []ring.NodeID{"other"}, Next: []ring.NodeID{self}})
	ask := func() message.Status { return r.ask(message.Request{Kind: message.Pulled, Epoch: 2}).Reply.Status }
	if s := ask(); s != message.Busy {
		t.Errorf("before: %s", s)
	}
	r.MarkPulled(0, 2, record.Ballot{}, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
	if s := ask(); s != message.OK {
		t.Errorf("after: %s", s)
	}
	again := newRig(t, d)
	if err := again.LoadPulled(d.Meta); err != nil || !again.Pulled(0, 2) || again.Pulled(0, 1) {
		t.Errorf("after a restart: %v", err)
	}
}
