package replica

import (
	"fmt"
	"strings"
	"testing"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

func configuration(epoch uint32, members ...ring.NodeID) ring.Configuration {
	return ring.Configuration{Epoch: epoch, Members: members}
}

// One that is ahead answers with its configuration, and one that is behind with its own, so that
// the sender can tell it the newer one; neither serves.
func TestWrongEpochBothWays(t *testing.T) {
	r := newRig(t, newDisk())
	r.table.conf = configuration(5, self)
	for _, epoch := range []uint32{4, 6} {
		for _, kind := range []message.Kind{message.Read, message.Prepare, message.Accept} {
			b := ballotIn(epoch, 9)
			a := r.ask(message.Request{Kind: kind, Epoch: epoch, Ballot: b, Record: encoded(b, "v")})
			r.want(fmt.Sprintf("kind %d in epoch %d", kind, epoch), a, message.WrongEpoch, record.Ballot{}, nil)
			if !a.Reply.Configuration.Equal(r.table.conf) {
				t.Errorf("kind %d in epoch %d: told %+v", kind, epoch, a.Reply.Configuration)
			}
		}
	}
	if n := r.Counters().WrongEpochs.Load(); n != 6 {
		t.Errorf("%d counted", n)
	}
	r.want("read", r.ask(message.Request{Kind: message.Read, Epoch: 5}), message.OK, record.Ballot{}, nil)
}

func TestWhoIsNotAskedRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		q    message.Request
		prep func(*rig)
		want message.Status
	}{
		{"no replica of the partition", message.Request{Kind: message.Read}, func(r *rig) { r.table.conf = configuration(1, "other") }, message.NotReplica},
		{"replica to be", message.Request{Kind: message.Read}, func(r *rig) {
			r.table.conf.Members, r.table.conf.Next = []ring.NodeID{"other"}, []ring.NodeID{self}
			r.cleans.done[0].Store(1)
		}, message.OK},
		{"replica to be that has not cleared the partition", message.Request{Kind: message.Read}, func(r *rig) {
			r.table.conf.Members, r.table.conf.Next = []ring.NodeID{"other"}, []ring.NodeID{self}
		}, message.Busy},
		{"no vote", message.Request{Kind: message.Read}, func(r *rig) { r.SetVoting(false) }, message.NotVoting},
		{"vote regained", message.Request{Kind: message.Read}, func(r *rig) { r.SetVoting(false); r.SetVoting(true) }, message.OK},
		{"partition out of range", message.Request{Kind: message.Read, Partition: 4}, nil, message.Invalid},
		{"huge partition", message.Request{Kind: message.Read, Partition: 1<<32 - 1}, nil, message.Invalid},
		{"long key", message.Request{Kind: message.Read, Key: make([]byte, record.MaxInternalKey+1)}, nil, message.Invalid},
		{"mutation", message.Request{Kind: message.Mutate}, nil, message.Invalid},
		{"unknown kind", message.Request{Kind: 99}, nil, message.Invalid},
	} {
		r := newRig(t, newDisk())
		if c.prep != nil {
			c.prep(r)
		}
		r.want(c.name, r.ask(c.q), c.want, record.Ballot{}, nil)
	}
}

func (r *rig) configure(c ring.Configuration) *asked {
	return r.ask(message.Request{Kind: message.Configure, Epoch: c.Epoch, Configuration: c})
}

// A configuration is followed once it is durable: a restart must not serve an older one.
func TestConfigureIsDurableFirst(t *testing.T) {
	r := newRig(t, newDisk())
	r.disk.hold = true
	two := configuration(2, self)
	a := r.configure(two)
	r.waits("configure", a)
	r.want("read in the old epoch", r.read(), message.OK, record.Ballot{}, nil)
	r.disk.release(nil)
	r.want("configure", a, message.OK, record.Ballot{}, nil)
	if !r.table.conf.Equal(two) || len(r.disk.metas[ConfigurationName(0)]) == 0 {
		t.Errorf("goes by %+v, on disk %q", r.table.conf, r.disk.metas[ConfigurationName(0)])
	}
	r.want("read in the old epoch", r.read(), message.WrongEpoch, record.Ballot{}, nil)
	r.want("read", r.ask(message.Request{Kind: message.Read, Epoch: 2}), message.OK, record.Ballot{}, nil)
}

func TestConfigureTakesOnlyNewer(t *testing.T) {
	r := newRig(t, newDisk())
	r.table.conf = configuration(5, self)
	for _, c := range []ring.Configuration{configuration(5, "other"), configuration(4, "other")} {
		r.want("older", r.configure(c), message.OK, record.Ballot{}, nil)
	}
	r.want("epoch 0", r.configure(configuration(0, "other")), message.Invalid, record.Ballot{}, nil)
	r.want("nobody", r.configure(configuration(6)), message.Invalid, record.Ballot{}, nil)
	if len(r.disk.order) != 0 || r.table.conf.Epoch != 5 {
		t.Errorf("wrote %v, goes by %+v", r.disk.order, r.table.conf)
	}
}

// What is written last is what a restart finds: an older one must never come behind a newer one.
func TestOneConfigurationOnItsWay(t *testing.T) {
	r := newRig(t, newDisk())
	r.disk.hold = true
	three := r.configure(configuration(3, self))
	for _, epoch := range []uint32{2, 3, 4} {
		r.want("another meanwhile", r.configure(configuration(epoch, self)), message.Busy, record.Ballot{}, nil)
	}
	elsewhere := r.ask(message.Request{Kind: message.Configure, Partition: 1, Configuration: configuration(2, self)})
	r.waits("another partition", elsewhere)
	r.disk.release(nil)
	r.want("the first", three, message.OK, record.Ballot{}, nil)
	r.want("another partition", elsewhere, message.OK, record.Ballot{}, nil)
	r.disk.hold = false
	r.want("the next", r.configure(configuration(4, self)), message.OK, record.Ballot{}, nil)
	if want := fmt.Sprint(configuration(4, self)); r.table.conf.Epoch != 4 || string(r.disk.metas[ConfigurationName(0)]) != want {
		t.Errorf("goes by %+v, on disk %q", r.table.conf, r.disk.metas[ConfigurationName(0)])
	}
}

func TestConfigureRefusedByTheStore(t *testing.T) {
	r := newRig(t, newDisk())
	r.disk.refuse = errFull
	r.want("full", r.configure(configuration(2, self)), message.Busy, record.Ballot{}, nil)
	r.disk.refuse = nil
	r.want("again", r.configure(configuration(2, self)), message.OK, record.Ballot{}, nil)
	r.disk.refuse = errDisk
	r.want("broken", r.configure(configuration(3, self)), message.TimedOut, record.Ballot{}, nil)
	if r.table.conf.Epoch != 2 || r.Healthy() {
		t.Errorf("goes by epoch %d, healthy %v", r.table.conf.Epoch, r.Healthy())
	}
}

func TestNewRefusesPromiseSlots(t *testing.T) {
	for _, slots := range []int{0, 255, 300, 768, 2048} {
		func() {
			defer func() {
				if got, want := fmt.Sprint(recover()), fmt.Sprintf("PromiseSlots is %d; it must be 256, 512 or 1024", slots); !strings.Contains(got, want) {
					t.Errorf("%s, want %s", got, want)
				}
			}()
			New(Options{PromiseSlots: slots})
		}()
	}
}
