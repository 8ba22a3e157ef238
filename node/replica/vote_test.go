package replica

import (
	"bytes"
	"fmt"
	"testing"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// CONSISTENCY, "The register": B < promised(k) or B ≤ acc(k) → NACK{max}; else ACK{acc, state}.
func TestPrepare(t *testing.T) {
	none := record.Ballot{}
	for _, c := range []struct {
		name          string
		acc, promised int // 0: none
		b             int
		status        message.Status
		ballot        record.Ballot
	}{
		{"never written", 0, 0, 10, message.OK, none},
		{"above what is accepted", 5, 0, 10, message.OK, ballot(5)},
		{"again", 5, 10, 10, message.OK, ballot(5)},
		{"below the promise", 5, 20, 10, message.Nack, ballot(20)},
		{"at what is accepted", 10, 0, 10, message.Nack, ballot(10)},
		{"below what is accepted", 20, 0, 10, message.Nack, ballot(20)},
	} {
		r := newRig(t, newDisk())
		var state []byte
		if c.acc > 0 {
			r.disk.records[string(key)] = encoded(ballot(c.acc), "v")
		}
		if c.promised > 0 {
			r.prepare(ballot(c.promised))
		}
		if c.status == message.OK && c.acc > 0 {
			state = encoded(ballot(c.acc), "v")
		}
		r.want(c.name, r.prepare(ballot(c.b)), c.status, c.ballot, state)
		if c.status == message.OK {
			r.want(c.name+", then below", r.prepare(ballot(c.b-1)), message.Nack, ballot(c.b), nil)
			r.want(c.name+", then an accept below", r.accept(ballot(c.b-1), none, "w"), message.Nack, ballot(c.b), nil)
			r.want(c.name+", then the accept", r.accept(ballot(c.b), none, "w"), message.OK, none, nil)
			r.want(c.name+", then a read", r.read(), message.OK, ballot(c.b), encoded(ballot(c.b), "w"))
		}
	}
}

// B < promised(k) → NACK unless B == acc(k) (a duplicate); promised = max(B, next).
func TestAccept(t *testing.T) {
	none := record.Ballot{}
	for _, c := range []struct {
		name          string
		acc, promised int
		b, next       int
		status        message.Status
		ballot        record.Ballot
		stored        bool
		then          int // the promise in force afterwards
	}{
		{"without a promise", 0, 0, 10, 0, message.OK, none, true, 10},
		{"as promised", 5, 10, 10, 0, message.OK, none, true, 10},
		{"above the promise", 5, 10, 15, 0, message.OK, none, true, 15},
		{"with the next ballot", 5, 10, 10, 12, message.OK, none, true, 12},
		{"below the promise", 5, 20, 10, 30, message.Nack, ballot(20), false, 20},
		{"below what is accepted", 20, 0, 10, 30, message.Nack, ballot(20), false, 0},
		{"a duplicate", 10, 10, 10, 0, message.OK, none, false, 10},
		{"a duplicate below a promise", 10, 20, 10, 0, message.OK, none, false, 20},
		{"a duplicate with a next ballot", 10, 10, 10, 15, message.OK, none, false, 15},
	} {
		r := newRig(t, newDisk())
		if c.acc > 0 {
			r.disk.records[string(key)] = encoded(ballot(c.acc), "old")
		}
		if c.promised > c.acc {
			r.prepare(ballot(c.promised))
		}
		next := none
		if c.next > 0 {
			next = ballot(c.next)
		}
		r.want(c.name, r.accept(ballot(c.b), next, "new"), c.status, c.ballot, nil)
		stored := encoded(ballot(c.b), "new")
		if !c.stored {
			stored = encoded(ballot(c.acc), "old")
		}
		r.want(c.name+", then a read", r.read(), message.OK, record.PeekBallot(stored), stored)
		if c.then > c.acc {
			r.want(c.name+", then below the promise", r.prepare(ballot(c.then-1)), message.Nack, ballot(c.then), nil)
		}
	}
}

// A key never written and sealed so has a ballot and no value: a digest and a read must tell.
func TestReadTellsTheBallot(t *testing.T) {
	for _, cold := range []bool{false, true} {
		r := newRig(t, newDisk())
		r.disk.cold = cold
		digest := message.Request{Kind: message.Read, Digest: true}
		r.want("read of nothing", r.read(), message.OK, record.Ballot{}, nil)
		r.want("digest of nothing", r.ask(digest), message.OK, record.Ballot{}, nil)
		r.accept(ballot(3), record.Ballot{}, "v")
		r.want("digest", r.ask(digest), message.OK, ballot(3), nil)
		r.want("read", r.read(), message.OK, ballot(3), encoded(ballot(3), "v"))
		if got := r.Counters().DiskReads.Load(); (got > 0) != cold {
			t.Errorf("cold=%v: %d disk reads", cold, got)
		}
	}
}

// An answer goes into the buffer that came with the call, so that steady readers allocate nothing.
func TestReadFillsTheCallersBuffer(t *testing.T) {
	r := newRig(t, newDisk())
	r.accept(ballot(3), record.Ballot{}, "v")
	call := message.Call{Completion: ignored{}, Request: message.Request{Kind: message.Read, Epoch: 1, Key: key, Hash: 1}}
	call.Room = make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { r.Send(&call) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(call.Reply.Record) == 0 || cap(call.Reply.Record) != 4096 {
		t.Errorf("%d of %d bytes", len(call.Reply.Record), cap(call.Reply.Record))
	}
}

type ignored struct{}

func (ignored) Done(*message.Call) {}

// Keys that share a place in the table of promises share promises: safe, and no more than that.
func TestSharedSlotsOnlyPromiseMore(t *testing.T) {
	r := newRig(t, newDisk())
	send := func(kind message.Kind, hash uint64, b record.Ballot) message.Status {
		a := &asked{Call: message.Call{Request: message.Request{Kind: kind, Epoch: 1, Key: key, Hash: hash, Ballot: b}}}
		a.Completion = a
		r.Send(&a.Call)
		return a.Reply.Status
	}
	if s := send(message.Prepare, 1, ballot(20)); s != message.OK {
		t.Fatal(s)
	}
	if s := send(message.Prepare, 1+256, ballot(10)); s != message.Nack {
		t.Errorf("the same slot: %v", s)
	}
	if s := send(message.Prepare, 2, ballot(10)); s != message.OK {
		t.Errorf("another slot: %v", s)
	}
}

// Ballots too far ahead of the clock are not followed: one runaway clock must not carry the others.
func TestClockReject(t *testing.T) {
	r := newRig(t, newDisk())
	far := int(ticksOf(MaxLead)) + 1
	none := record.Ballot{}
	r.want("prepare", r.prepare(ballot(far)), message.ClockReject, none, nil)
	r.want("accept", r.accept(ballot(far), none, "v"), message.ClockReject, none, nil)
	r.want("next", r.accept(ballot(1), ballot(far), "v"), message.ClockReject, none, nil)
	if n := r.Counters().ClockRejects.Load(); n != 3 {
		t.Errorf("%d clock rejects counted", n)
	}
	r.want("read", r.read(), message.OK, none, nil)
	r.want("just near enough", r.prepare(ballot(far-1)), message.OK, none, nil)
}

func TestAcceptWithoutABallotIsInvalid(t *testing.T) {
	r := newRig(t, newDisk())
	r.want("zero", r.accept(record.Ballot{}, record.Ballot{}, "v"), message.Invalid, record.Ballot{}, nil)
	r.want("read", r.read(), message.OK, record.Ballot{}, nil)
}

// A ReadMany answers each key as a Read would, and one that takes the disk comes whole, later.
func TestReadMany(t *testing.T) {
	for _, cold := range []bool{false, true} {
		r := newRig(t, newDisk())
		r.accept(ballot(3), record.Ballot{}, "v")
		r.disk.cold = cold
		var items []byte
		for _, it := range []message.Item{
			{Epoch: 1, Key: key}, {Epoch: 1, Key: key, Digest: true}, {Epoch: 1, Key: []byte("absent")},
			{Epoch: 2, Key: key}, {Epoch: 1, Key: bytes.Repeat([]byte("k"), record.MaxInternalKey)},
		} {
			items = message.AppendItem(items, it)
		}
		want := []message.Answer{
			{Status: message.OK, Ballot: ballot(3), Record: encoded(ballot(3), "v")}, {Status: message.OK, Ballot: ballot(3)},
			{Status: message.OK}, {Status: message.WrongEpoch}, {Status: message.OK},
		}
		check := func(what string, want []message.Answer) {
			t.Helper()
			a := r.ask(message.Request{Kind: message.ReadMany, Items: items})
			if a.answers != 1 || a.Reply.Status != message.OK {
				t.Fatalf("%s: %d answers, %v", what, a.answers, a.Reply.Status)
			}
			rest := a.Reply.Items
			for i, w := range want {
				var got message.Answer
				var ok bool
				if got, rest, ok = message.NextAnswer(rest); !ok || got.Status != w.Status || got.Ballot != w.Ballot || !bytes.Equal(got.Record, w.Record) {
					t.Errorf("%s: answer %d: %+v, want %+v", what, i, got, w)
				}
			}
			if len(rest) != 0 {
				t.Errorf("%s: %d bytes too many", what, len(rest))
			}
		}
		reads := r.Counters().Reads.Load()
		check(fmt.Sprintf("cold=%v", cold), want)
		if n := r.Counters().Reads.Load() - reads; n != 5 {
			t.Errorf("%d reads counted", n)
		}
		r.disk.broken = record.ErrCorrupt
		corrupt := message.Answer{Status: message.Corrupt}
		check("corrupt", []message.Answer{corrupt, corrupt, corrupt, {Status: message.WrongEpoch}, corrupt})
		r.disk.broken = nil
		whole := items
		items = items[:len(items)-1]
		if a := r.ask(message.Request{Kind: message.ReadMany, Items: items}); a.Reply.Status != message.Invalid {
			t.Errorf("cut short: %v", a.Reply.Status)
		}
		items = whole
		r.SetVoting(false)
		if a := r.ask(message.Request{Kind: message.ReadMany, Items: items}); a.Reply.Status != message.NotVoting {
			t.Errorf("without a vote: %v", a.Reply.Status)
		}
	}
}

// ReadNow is a Read from memory.
func TestReadNow(t *testing.T) {
	r := newRig(t, newDisk())
	r.accept(ballot(3), record.Ballot{}, "v")
	now := func(epoch uint32) (message.Status, record.Ballot, string, bool) {
		s, b, enc, known := r.ReadNow([]byte("before"), 0, epoch, ring.Hash(key), key)
		return s, b, string(enc), known
	}
	if s, b, enc, known := now(1); s != message.OK || b != ballot(3) || enc != "before"+string(encoded(ballot(3), "v")) || !known {
		t.Errorf("%v %v %q %v", s, b, enc, known)
	}
	if s, _, enc, known := now(2); s != message.WrongEpoch || enc != "before" || !known {
		t.Errorf("%v %q %v", s, enc, known)
	}
	r.disk.broken = record.ErrCorrupt
	if _, _, enc, known := now(1); enc != "before" || known {
		t.Errorf("corrupt: %q %v", enc, known)
	}
	r.disk.broken, r.disk.cold = nil, true
	if _, _, enc, known := now(1); enc != "before" || known {
		t.Errorf("cold: %q %v", enc, known)
	}
}
