package replica

import (
	"sync"
	"testing"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// A read answers with what is durable, at once; a promise waits, because the state it tells must be
// the one that a restart would find.
func TestPrepareWaitsBehindAStagedWrite(t *testing.T) {
	r := newRig(t, newDisk())
	r.accept(ballot(1), record.Ballot{}, "old")
	r.disk.hold = true
	write := r.accept(ballot(5), record.Ballot{}, "new")
	promise := r.prepare(ballot(9))
	late := r.prepare(ballot(3))
	r.waits("write", write)
	r.waits("promise", promise)
	r.want("read", r.read(), message.OK, ballot(1), encoded(ballot(1), "old"))
	r.disk.release(nil)
	r.want("write", write, message.OK, record.Ballot{}, nil)
	r.want("promise", promise, message.OK, ballot(5), encoded(ballot(5), "new"))
	r.want("promise below", late, message.Nack, ballot(9), nil)
	r.want("read", r.read(), message.OK, ballot(5), encoded(ballot(5), "new"))
}

// A duplicate may be acknowledged only with the original; writes above it need not wait.
func TestDuplicateWaitsForTheOriginal(t *testing.T) {
	r := newRig(t, newDisk())
	r.disk.hold = true
	first := r.accept(ballot(5), record.Ballot{}, "v")
	again := r.accept(ballot(5), record.Ballot{}, "v")
	above := r.accept(ballot(6), record.Ballot{}, "w")
	below := r.accept(ballot(4), record.Ballot{}, "u")
	r.waits("first", first)
	r.waits("again", again)
	r.waits("above", above)
	r.want("below", below, message.Nack, ballot(6), nil)
	if n := len(r.disk.staged); n != 2 {
		t.Errorf("%d writes staged, want 2", n)
	}
	r.disk.release(nil)
	r.want("first", first, message.OK, record.Ballot{}, nil)
	r.want("above", above, message.OK, record.Ballot{}, nil)
	// Its ballot is under the promise of the one above by now: it is told so, and that is true too.
	r.want("again", again, message.Nack, ballot(6), nil)
}

func TestDuplicateIsAcknowledgedWithTheOriginal(t *testing.T) {
	r := newRig(t, newDisk())
	r.disk.hold = true
	first := r.accept(ballot(5), ballot(7), "v")
	again := r.accept(ballot(5), ballot(7), "v")
	r.disk.release(nil)
	r.want("first", first, message.OK, record.Ballot{}, nil)
	r.want("again", again, message.OK, record.Ballot{}, nil)
	r.want("the promise", r.prepare(ballot(6)), message.Nack, ballot(7), nil)
}

// A refused write leaves nothing behind but the promise; who waited is judged anew.
func TestRefusedWrite(t *testing.T) {
	r := newRig(t, newDisk())
	r.accept(ballot(1), record.Ballot{}, "old")
	r.disk.refuse = errFull
	r.want("accept", r.accept(ballot(5), ballot(6), "new"), message.Busy, record.Ballot{}, nil)
	r.disk.refuse = nil
	if !r.Healthy() {
		t.Error("a full queue cost the vote")
	}
	r.want("read", r.read(), message.OK, ballot(1), encoded(ballot(1), "old"))
	r.want("prepare above", r.prepare(ballot(7)), message.OK, ballot(1), encoded(ballot(1), "old"))
	r.want("accept", r.accept(ballot(7), record.Ballot{}, "new"), message.OK, record.Ballot{}, nil)
}

// After a failed write nobody knows what is on disk: this node must not vote until a restart has
// looked. Who waited hears that, and so does everybody later.
func TestFailedStoreStopsTheVote(t *testing.T) {
	r := newRig(t, newDisk())
	r.accept(ballot(1), record.Ballot{}, "old")
	r.disk.hold = true
	write := r.accept(ballot(5), record.Ballot{}, "new")
	promise := r.prepare(ballot(9))
	again := r.accept(ballot(5), record.Ballot{}, "new")
	r.disk.release(errDisk)
	r.want("write", write, message.TimedOut, record.Ballot{}, nil)
	r.want("promise", promise, message.NotVoting, record.Ballot{}, nil)
	r.want("duplicate", again, message.NotVoting, record.Ballot{}, nil)
	r.want("read", r.read(), message.NotVoting, record.Ballot{}, nil)
	r.want("configure", r.ask(message.Request{Kind: message.Configure}), message.NotVoting, record.Ballot{}, nil)
	if r.Healthy() {
		t.Error("healthy")
	}
}

func TestFailedReadStopsTheVote(t *testing.T) {
	r := newRig(t, newDisk())
	r.disk.cold, r.disk.broken = true, errDisk
	r.want("read", r.read(), message.TimedOut, record.Ballot{}, nil)
	r.want("next read", r.read(), message.NotVoting, record.Ballot{}, nil)
}

// What waits on one key is bounded.
func TestParkedCallsAreBounded(t *testing.T) {
	r := newRig(t, newDisk())
	r.disk.hold = true
	r.accept(ballot(5), record.Ballot{}, "v")
	parked := make([]*asked, maxParked)
	for i := range parked {
		parked[i] = r.accept(ballot(5), record.Ballot{}, "v")
	}
	r.want("one more prepare", r.prepare(ballot(6)), message.Busy, record.Ballot{}, nil)
	r.want("one more duplicate", r.accept(ballot(5), record.Ballot{}, "v"), message.Busy, record.Ballot{}, nil)
	r.disk.release(nil)
	for _, a := range parked {
		r.want("parked", a, message.OK, record.Ballot{}, nil)
	}
	for i := range r.stripes {
		if r.stripes[i].first.writes != 0 || len(r.stripes[i].more) != 0 {
			t.Fatal("a key is pending without a write")
		}
	}
}

// Damage is told as such, whoever asks; it never is "absent". A newer write may replace it: nothing
// that was accepted is above what was promised.
func TestCorruptState(t *testing.T) {
	for _, cold := range []bool{false, true} {
		r := newRig(t, newDisk())
		r.prepare(ballot(3))
		r.disk.cold, r.disk.broken = cold, record.ErrCorrupt
		none := record.Ballot{}
		r.want("read", r.read(), message.Corrupt, none, nil)
		r.want("digest", r.ask(message.Request{Kind: message.Read, Digest: true}), message.Corrupt, none, nil)
		r.want("prepare", r.prepare(ballot(5)), message.Corrupt, none, nil)
		r.want("accept below the promise", r.accept(ballot(2), none, "v"), message.Nack, ballot(3), nil)
		r.want("accept", r.accept(ballot(6), none, "v"), message.OK, none, nil)
		if n := r.Counters().Corrupt.Load(); n != 3 || !r.Healthy() {
			t.Errorf("%d corrupt counted, healthy %v", n, r.Healthy())
		}
		r.disk.broken = nil
		r.want("read", r.read(), message.OK, ballot(6), encoded(ballot(6), "v"))
	}
}

// What takes the disk is answered elsewhere, so that whoever brings calls goes on; except for who
// wants to know now or not at all.
func TestDiskReadsAreAside(t *testing.T) {
	r := newRig(t, newDisk())
	r.accept(ballot(3), record.Ballot{}, "v")
	r.disk.cold = true
	r.want("read in memory", r.ask(message.Request{Kind: message.Read, InMemory: true}), message.Busy, record.Ballot{}, nil)

	r.disk.mu.Lock() // the disk stands still
	const calls = 3 * maxDisk
	var reads [calls]asked
	var answered sync.WaitGroup
	answered.Add(calls)
	for i := range reads {
		a := &reads[i]
		a.Request = message.Request{Kind: message.Read, Epoch: 1, Key: key, Hash: ring.Hash(key)}
		a.Completion = completion(func(c *message.Call) { a.Done(c); answered.Done() })
		r.Send(&a.Call)
	}
	if n, m := r.Replica.disk.workers, len(r.Replica.disk.queue); n != maxDisk || m != calls-maxDisk {
		t.Errorf("%d goroutines read the disk, %d calls wait", n, m)
	}
	r.disk.mu.Unlock()
	answered.Wait()
	r.settle()
	for i := range reads {
		r.want("read", &reads[i], message.OK, ballot(3), encoded(ballot(3), "v"))
	}
	if r.Replica.disk.queue != nil {
		t.Error("the queue is kept")
	}
}

type completion func(*message.Call)

func (f completion) Done(c *message.Call) { f(c) }
