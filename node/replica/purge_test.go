package replica

import (
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Purge implements Purger.
func (d *disk) Purge(_ ring.Partition, _ uint64, key []byte, done interface{ Committed(error) }) {
	d.stage(staged{name: string(key), gone: true, done: done})
}

// die has the replica hold a tombstone of key.
func (r *rig) die(key string, b record.Ballot) {
	rec := record.Record{Ballot: b, Kind: record.Tombstone, Version: b.Stamp, CAS: b.Stamp}
	if a := r.ask(message.Request{Kind: message.Accept, Key: []byte(key), Record: record.Append(nil, []byte(key), &rec)}); a.Reply.Status != message.OK {
		r.t.Fatalf("tombstone: %s", a.Reply.Status)
	}
}

func (r *rig) purging(digest bool, fence record.Ballot, items []byte) *asked {
	return r.ask(message.Request{Kind: message.Purge, Digest: digest, Ballot: fence, Items: items, Key: []byte{}})
}

func dead(pairs ...any) (items []byte) {
	for i := 0; i < len(pairs); i += 2 {
		items = message.AppendDead(items, []byte(pairs[i].(string)), pairs[i+1].(record.Ballot))
	}
	return items
}

func TestPurgeConfirms(t *testing.T) {
	r := newRig(t, newDisk())
	r.die("dead", ballot(5))
	r.die("newer", ballot(9))
	r.putAt("alive", ballot(5))
	expired := record.Record{Ballot: ballot(4), Kind: record.Value, Version: 1, CAS: 1, Expiry: uint32(r.now.Unix()) - 60, Value: []byte("v")}
	r.ask(message.Request{Kind: message.Accept, Key: []byte("expired"), Record: record.Append(nil, []byte("expired"), &expired)})
	soon := expired
	soon.Expiry = uint32(r.now.Unix()) - 5 // within what clocks may differ
	r.ask(message.Request{Kind: message.Accept, Key: []byte("soon"), Record: record.Append(nil, []byte("soon"), &soon)})
	items := dead("dead", ballot(5), "newer", ballot(5), "alive", ballot(5), "never", ballot(5), "expired", ballot(4), "soon", ballot(4))
	a := r.purging(true, ballot(6), items)
	if a.Reply.Status != message.OK || string(a.Reply.Items) != "\x01\x00\x00\x01\x01\x00" {
		t.Fatalf("%s %q", a.Reply.Status, a.Reply.Items)
	}
	if r.PurgeFence(0) != ballot(6) {
		t.Errorf("fence at %v", r.PurgeFence(0))
	}
	if a := r.purging(true, ballot(6), dead("dead", ballot(7))); a.Reply.Status != message.Invalid {
		t.Errorf("above its own fence: %s", a.Reply.Status)
	}
	if a := r.purging(false, ballot(6), dead("dead", ballot(5), "newer", ballot(5))); string(a.Reply.Items) != "\x01\x00" {
		t.Errorf("purge: %s %q", a.Reply.Status, a.Reply.Items)
	}
	if _, there := r.disk.records["dead"]; there || len(r.disk.records["newer"]) == 0 {
		t.Error("not the right record was purged")
	}
	if all, scan := r.sumsNow(); all != r.disk.scanned() {
		t.Errorf("sums are wrong (scanned: %v)", scan)
	}
}

// Nothing as old as what was purged comes back, whatever brings it, also after a restart.
func TestPurgeFence(t *testing.T) {
	d := newDisk()
	r := newRig(t, d)
	r.die("key", ballot(5))
	r.purging(true, ballot(6), dead("key", ballot(5)))
	r.purging(false, ballot(6), dead("key", ballot(5)))
	for range 2 {
		for _, n := range []int{3, 5} {
			if a := r.accept(ballot(n), record.Ballot{}, "old"); a.Reply.Status != message.Nack {
				t.Errorf("accept at %d: %s", n, a.Reply.Status)
			}
			learnt := &asked{Call: message.Call{Request: message.Request{Kind: message.Accept, Epoch: 1, Hash: ring.Hash(key), Key: key, Record: encoded(ballot(n), "old")}}}
			learnt.Completion = learnt
			if r.Learn(&learnt.Call); learnt.Reply.Status != message.Nack {
				t.Errorf("learn at %d: %s", n, learnt.Reply.Status)
			}
		}
		if a := r.prepare(ballot(4)); a.Reply.Status != message.Nack {
			t.Errorf("prepare: %s", a.Reply.Status)
		}
		r = newRig(t, d)
		if err := r.LoadPulled(d.Meta); err != nil {
			t.Fatal(err)
		}
	}
	r.now = r.now.Add(time.Minute) // beyond the fence of the restart
	// Who begins anew is told that mutations up to the fence may have been part of what is gone.
	a := r.prepare(ballot(9_000_000 / 8 * 5))
	var rec record.Record
	if a.Reply.Status != message.OK || !a.Reply.Ballot.IsZero() || record.Decode(key, a.Reply.Record, &rec) != nil {
		t.Fatalf("prepare: %s %v %q", a.Reply.Status, a.Reply.Ballot, a.Reply.Record)
	}
	if rec.Kind != record.Absent || rec.Lineage(ballot(5).Stamp) != record.MaybeFolded || rec.Lineage(ballot(7).Stamp) != record.NotFolded {
		t.Errorf("%+v", rec)
	}
}

// A state that was replaced between the two messages is not purged, and one whose replacement is under way neither.
func TestPurgeLeavesNewStates(t *testing.T) {
	d := newDisk()
	r := newRig(t, d)
	r.die("key", ballot(5))
	r.purging(true, ballot(6), dead("key", ballot(5)))
	d.hold = true
	w := r.accept(ballot(8), record.Ballot{}, "new")
	a := r.purging(false, ballot(6), dead("key", ballot(5)))
	if string(a.Reply.Items) != "\x00" {
		t.Errorf("with a write under way: %s %q", a.Reply.Status, a.Reply.Items)
	}
	d.hold = false
	d.release(nil)
	r.want("write", w, message.OK, record.Ballot{}, nil)
	if a = r.purging(false, ballot(6), dead("key", ballot(5))); string(a.Reply.Items) != "\x00" {
		t.Errorf("after a write: %s %q", a.Reply.Status, a.Reply.Items)
	}
	if len(d.records["key"]) == 0 {
		t.Error("the new state was purged")
	}
}

// A write that comes while the purge is on its way stands behind it.
func TestWriteBehindAPurge(t *testing.T) {
	d := newDisk()
	r := newRig(t, d)
	r.die("key", ballot(5))
	r.sumsNow()
	r.purging(true, ballot(6), dead("key", ballot(5)))
	d.hold = true
	before := len(stagedNames(d))
	p := &asked{Call: message.Call{Request: message.Request{Kind: message.Purge, Epoch: 1, Ballot: ballot(6), Items: dead("key", ballot(5))}}}
	p.Completion = p
	r.Send(&p.Call)
	for len(stagedNames(d)) == before {
		time.Sleep(time.Millisecond)
	}
	w := r.accept0(ballot(8), "new")
	d.hold = false
	d.release(nil)
	r.settle()
	r.want("write", w, message.OK, record.Ballot{}, nil)
	if string(p.Reply.Items) != "\x01" || record.PeekBallot(d.records["key"]) != ballot(8) {
		t.Errorf("purge: %q, record at %v", p.Reply.Items, record.PeekBallot(d.records["key"]))
	}
	if all, _ := r.sumsNow(); all != d.scanned() {
		t.Error("sums are wrong")
	}
}

// accept0 is accept while somebody waits for the disk.
func (r *rig) accept0(b record.Ballot, value string) *asked {
	a := &asked{Call: message.Call{Request: message.Request{Kind: message.Accept, Epoch: 1, Hash: ring.Hash(key), Key: key, Record: encoded(b, value)}}}
	a.Completion = a
	r.Send(&a.Call)
	return a
}

func TestDeadLists(t *testing.T) {
	r := newRig(t, newDisk())
	r.now = r.now.Add(time.Hour)
	r.die("a", ballot(5))
	r.die("b", ballot(7))
	r.putAt("c", ballot(5))
	r.die("d", record.Ballot{Epoch: 1, Stamp: record.NewStamp(record.Ticks(r.now.Add(-time.Second)), 2)}) // lately
	first, err := r.Dead(0, nil, time.Minute, 1)
	if err != nil || !first.More || string(first.After) != "a" || string(first.Items) != string(dead("a", ballot(5))) {
		t.Fatalf("%+v %v", first, err)
	}
	rest, err := r.Dead(0, first.After, time.Minute, 1)
	if err != nil || rest.More || string(rest.Items) != string(dead("b", ballot(7))) {
		t.Fatalf("%+v %v", rest, err)
	}
	if want := record.Ballot(ballot(7)); rest.Fence.Epoch != 1 || rest.Fence.Stamp != want.Stamp+1 {
		t.Errorf("fence %v", rest.Fence)
	}
	if rest.Due < 58*time.Second || rest.Due > time.Minute {
		t.Errorf("due in %v", rest.Due)
	}
}

// What a node has of an earlier membership is gone before it serves as a new member, and stays gone.
func TestNewMembersBeginWithNothing(t *testing.T) {
	d := newDisk()
	r := newRig(t, d)
	r.putAt("stale", ballot(5))
	d.order = nil
	r.configure(ring.Configuration{Epoch: 4, Members: []ring.NodeID{"other"}, Next: []ring.NodeID{"other", self}})
	r.settle()
	if len(d.records) != 0 {
		t.Fatalf("%d records left", len(d.records))
	}
	if !d.stagedBefore(ConfigurationName(0), "stale") {
		t.Errorf("cleared before the configuration was on the disk: %q", d.order)
	}
	rec := record.Record{Ballot: ballotIn(4, 9), Kind: record.Value, Version: 1, CAS: 1}
	if a := r.ask(message.Request{Kind: message.Accept, Epoch: 4, Record: record.Append(nil, key, &rec)}); a.Reply.Status != message.OK {
		t.Fatalf("accept: %s", a.Reply.Status)
	}
	again := newRig(t, d)
	again.table.conf = r.table.conf
	if err := again.LoadPulled(d.Meta); err != nil {
		t.Fatal(err)
	}
	if a := again.ask(message.Request{Kind: message.Read, Epoch: 4}); a.Reply.Ballot != ballotIn(4, 9) {
		t.Errorf("after a restart: %s %v", a.Reply.Status, a.Reply.Ballot)
	}
	// One that stopped before it had cleared all does so before it serves.
	delete(d.metas, CleanName(0))
	late := newRig(t, d)
	late.table.conf = r.table.conf
	if err := late.LoadPulled(d.Meta); err != nil {
		t.Fatal(err)
	}
	if a := late.ask(message.Request{Kind: message.Read, Epoch: 4}); a.Reply.Status != message.Busy {
		t.Errorf("not cleared yet: %s", a.Reply.Status)
	}
	if a := late.ask(message.Request{Kind: message.Read, Epoch: 4}); a.Reply.Status != message.OK || !a.Reply.Ballot.IsZero() {
		t.Errorf("cleared late: %s %v", a.Reply.Status, a.Reply.Ballot)
	}
}

func TestDropForgetsWhatMovedAway(t *testing.T) {
	d := newDisk()
	r := newRig(t, d)
	for _, k := range []string{"a", "b", "c"} {
		r.putAt(k, ballot(5))
	}
	if more, err := r.Drop(0); more || err != nil || len(d.records) != 3 {
		t.Fatalf("a member's records: %v %v, %d left", more, err, len(d.records))
	}
	r.configure(ring.Configuration{Epoch: 3, Members: []ring.NodeID{"other"}})
	if more, err := r.Drop(0); !more || err != nil || len(d.records) != 0 {
		t.Fatalf("%v %v, %d left", more, err, len(d.records))
	}
	if more, err := r.Drop(0); more || err != nil {
		t.Fatalf("again: %v %v", more, err)
	}
}
