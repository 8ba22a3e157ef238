package quorum

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// wire is a node's way to a replica. Like a link it answers within a call's timeout, and spoils a
// reply's slices after Done. What it does to a call is the test's choice.
type wire struct {
	to    *node
	local bool

	mu   sync.Mutex
	hook func(*message.Call) message.Status
	log  []message.Request
	held []*holding
	sick atomic.Bool
	slow atomic.Int64 // how often it was said to be

	relays sync.Pool
	quiet  bool // keeps no log
}

// What a hook may answer beside statuses.
const (
	deliver message.Status = 0
	// keep holds the call until release, or its timeout.
	keep message.Status = 100
	// mute delivers the call and loses the answer: the caller hears TimedOut at once.
	mute message.Status = 101
)

func newWire(to *node, local bool) *wire {
	w := &wire{to: to, local: local}
	w.relays.New = func() any { return &relay{w: w} }
	return w
}

// answer makes every call of those kinds (none: all) be answered so.
func (w *wire) answer(s message.Status, kinds ...message.Kind) {
	w.setHook(func(c *message.Call) message.Status {
		if len(kinds) == 0 || slices.Contains(kinds, c.Kind) {
			return s
		}
		return deliver
	})
}

func (w *wire) setHook(f func(*message.Call) message.Status) {
	w.mu.Lock()
	w.hook = f
	w.mu.Unlock()
}

// heal lets calls through, and forgets what came so far.
func (w *wire) heal() {
	w.mu.Lock()
	w.hook, w.log = nil, nil
	w.mu.Unlock()
}

// count is how many calls of that kind came.
func (w *wire) count(kind message.Kind) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, q := range w.log {
		if q.Kind == kind {
			n++
		}
	}
	return n
}

func (w *wire) Healthy() bool { return !w.sick.Load() }

func (w *wire) Flush() {}

func (w *wire) Hedged() { w.slow.Add(1) }

func (w *wire) Send(call *message.Call) {
	action := deliver
	if !w.quiet {
		w.mu.Lock()
		q := call.Request
		q.Key, q.Record, q.Items = slices.Clone(q.Key), slices.Clone(q.Record), slices.Clone(q.Items)
		w.log = append(w.log, q)
		hook := w.hook
		w.mu.Unlock()
		if hook != nil {
			action = hook(call)
		}
	}
	switch action {
	case deliver:
		w.pass(call)
	case keep:
		w.hold(call)
	case mute:
		lost := &message.Call{Request: call.Request, Completion: ignore{}}
		w.pass(lost)
		answer(call, message.TimedOut)
	default:
		answer(call, action)
	}
}

// localWire is a node's way to its own replica, which can be asked directly.
type localWire struct{ *wire }

// WarmIndex implements Reader.
func (w localWire) WarmIndex(uint64) {}

// WarmEntry implements Reader.
func (w localWire) WarmEntry(uint64) {}

// ReadNow implements Reader.
func (w localWire) ReadNow(dst []byte, p ring.Partition, epoch uint32, hash uint64, key []byte) (message.Status, record.Ballot, []byte, bool) {
	if !w.quiet {
		q := message.Request{Kind: message.Read, Partition: p, Epoch: epoch, Hash: hash, Key: slices.Clone(key)}
		w.mu.Lock()
		hook := w.hook
		w.mu.Unlock()
		if hook != nil {
			switch action := hook(&message.Call{Request: q}); action {
			case deliver:
			case keep, mute:
				return 0, record.Ballot{}, dst, false // Send does it
			default:
				return action, record.Ballot{}, dst, true
			}
		}
		w.mu.Lock()
		w.log = append(w.log, q)
		w.mu.Unlock()
	}
	return w.to.replica.ReadNow(dst, p, epoch, hash, key)
}

func answer(call *message.Call, s message.Status) {
	call.Reply = message.Reply{Status: s}
	call.Completion.Done(call)
}

func (w *wire) pass(call *message.Call) {
	if w.local {
		w.to.replica.Send(call)
		return
	}
	r := w.relays.Get().(*relay)
	r.back.Completion, r.back.Index = call.Completion, call.Index
	r.call.Request, r.call.Completion = call.Request, r
	if call.Kind == message.Mutate {
		w.to.Forwarded(&r.call)
		return
	}
	if call.Kind == message.Hints {
		w.to.repairer.Pull(&r.call)
		return
	}
	w.to.replica.Send(&r.call)
}

// relay carries one call to the other side and the reply back.
type relay struct {
	w    *wire
	call message.Call
	back message.Call
}

// Done implements message.Completion.
func (r *relay) Done(call *message.Call) {
	rep := call.Reply
	rep.Came = 0 // not sent
	r.back.Reply = rep
	r.back.Completion.Done(&r.back)
	for _, b := range [][]byte{rep.Record, rep.Items, rep.Result.Value} {
		for i := range b {
			b[i] = 0xff
		}
	}
	r.back = message.Call{}
	r.w.relays.Put(r)
}

// holding is a call that waits for the test.
type holding struct {
	call  *message.Call
	timer *time.Timer
	once  sync.Once
}

func (w *wire) hold(call *message.Call) {
	call = call.Keep()
	h := &holding{call: call}
	h.timer = time.AfterFunc(call.Timeout, func() { h.once.Do(func() { answer(call, message.TimedOut) }) })
	w.mu.Lock()
	w.held = append(w.held, h)
	w.mu.Unlock()
}

// release lets held calls through, and all later ones.
func (w *wire) release() {
	w.mu.Lock()
	held := w.held
	w.held, w.hook = nil, nil
	w.mu.Unlock()
	for _, h := range held {
		h.timer.Stop()
		h.once.Do(func() { w.pass(h.call) })
	}
}
