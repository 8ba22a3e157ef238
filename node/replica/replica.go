// Package replica holds the rules one replica obeys: read, promise, accept (CONSISTENCY: "The
// register"; CASPaxos, arXiv 1802.07000). It is pure over a storage interface: no network, no
// goroutines of its own, the clock injected.
package replica

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Storage keeps encoded records. Get and Peek append to dst; found=false means never written.
type Storage interface {
	// Peek answers from memory; known=false means that only Get can tell.
	Peek(dst []byte, p ring.Partition, hash uint64, key []byte) (enc []byte, found, known bool, err error)
	// PeekBallot is Peek for the ballot alone.
	PeekBallot(p ring.Partition, hash uint64, key []byte) (b record.Ballot, found, known bool)
	// Get may read the disk. A failed checksum wraps record.ErrCorrupt.
	Get(dst []byte, p ring.Partition, hash uint64, key []byte) (enc []byte, found bool, err error)
	// Put stages a write and copies what it needs. done hears exactly once, perhaps before Put
	// returns: nil when the write is durable. Until then Get and Peek answer without it.
	Put(p ring.Partition, hash uint64, key, enc []byte, done interface{ Committed(error) })
}

// warmer is a Storage that can be told which keys are about to be looked up in it.
type warmer interface {
	// WarmIndex comes first, for all of them, then WarmEntry. They do not block.
	WarmIndex(hash uint64)
	WarmEntry(hash uint64)
}

// Configurations holds the configuration of every partition.
type Configurations interface {
	Configuration(p ring.Partition) ring.Configuration
	// Adopt takes c if it is newer; false if it was not. Only the replica calls it, once it serves.
	Adopt(p ring.Partition, c ring.Configuration) bool
}

// Options of New.
type Options struct {
	Self           ring.NodeID
	Storage        Storage
	Journal        Journal
	Fence          *Fence
	Configurations Configurations
	// EncodeConfiguration is how a configuration is kept in the Journal, under ConfigurationName.
	EncodeConfiguration func(ring.Configuration) []byte
	Partitions          int
	// PromiseSlots is the size of a partition's table of promises: 256, 512 or 1,024.
	// Keys that share a slot share promises: safe, and costs a round trip now and then.
	PromiseSlots int
	// Refused tells which store errors mean that certainly nothing was done.
	Refused func(error) bool
	// Wall tells the time that ballots are held against.
	Wall   func() time.Time
	Logger *slog.Logger
	// Without switches safety rules off. Only the simulator sets it.
	Without Rule
}

// Rule names a safety rule that the simulator can switch off, to show that it would notice.
type Rule uint8

const (
	// RulePurgeFence: where a dead record was purged, nothing as old is accepted again.
	RulePurgeFence Rule = 1 << iota
	// RuleClean: a new member begins with nothing.
	RuleClean
)

// Replica answers the register's messages for one node. Safe for concurrent use.
type Replica struct {
	stripes   [stripes]stripe // first, for its cache lines
	opts      Options
	parts     []part
	voting    atomic.Bool
	sealed    atomic.Bool
	commits   sync.Pool // of *commit
	answers   sync.Pool // of *message.Call, to answer with
	counters  Counters
	disk      diskQueue
	warmer    warmer // Storage, if it is one
	transfers transfers
	scanning  sync.Mutex // held by whoever scans a partition to learn the sums that an earlier life wrote
	purges    purges
	cleans    cleans

	confMu   sync.Mutex
	adopting map[ring.Partition]struct{} // their next configuration is on its way to the disk
}

// part is what every message to a partition asks.
type part struct {
	leaves atomic.Pointer[leaves]
	// floor is a promise for all keys: see Replica.floor.
	floor atomic.Pointer[record.Ballot]
	// serves is the epoch of the partition's configuration if this node is a replica by it, or 0 for "look closer". Written
	// under confMu.
	serves atomic.Uint32
	// mortals changes when a record is written that is dead, or that expires.
	mortals atomic.Uint32
}

// Counters count what the replica answered, since start.
type Counters struct {
	Reads, Prepares, Accepts, Nacks, ClockRejects, WrongEpochs, Corrupt, DiskReads atomic.Uint64
}

// New makes a replica that votes.
func New(opts Options) *Replica {
	if n := opts.PromiseSlots; n != message.Leaves && n != 2*message.Leaves && n != leafSlots*message.Leaves {
		panic(fmt.Sprintf("replica: PromiseSlots is %d; it must be %d, %d or %d", n, message.Leaves, 2*message.Leaves, leafSlots*message.Leaves))
	}
	r := &Replica{opts: opts, parts: make([]part, opts.Partitions), adopting: map[ring.Partition]struct{}{},
		transfers: newTransfers(opts.Partitions), purges: newPurges(opts.Partitions), cleans: newCleans(opts.Partitions)}
	r.warmer, _ = opts.Storage.(warmer)
	r.commits.New = func() any { return &commit{r: r} }
	r.answers.New = func() any { return new(message.Call) }
	r.voting.Store(true)
	return r
}

// SetVoting says whether the replica takes part. One that does not answers NotVoting.
func (r *Replica) SetVoting(on bool) { r.voting.Store(on) }

// Healthy reports whether the replica takes part.
func (r *Replica) Healthy() bool { return r.voting.Load() }

// Seal has the replica take no proposals any more, and forget nothing; it still tells what it holds. When it returns, what it took before is
// durable. It blocks for that.
func (r *Replica) Seal() error {
	r.sealed.Store(true)
	return r.flush()
}

// Unseal takes Seal back.
func (r *Replica) Unseal() { r.sealed.Store(false) }

// proposal reports whether a message of that kind may change what is accepted, promised or forgotten.
func proposal(k message.Kind) bool {
	return k == message.Prepare || k == message.PrepareAll || k == message.Accept || k == message.Purge
}

// Counters returns the replica's counters.
func (r *Replica) Counters() *Counters { return &r.counters }

// Flush has nothing to push out: a local replica answers as it is asked.
func (r *Replica) Flush() {}

// Send answers call: at once, or when the store has committed, or, if that takes a disk read, on
// another goroutine. It does not block, and keeps nothing of call.
func (r *Replica) Send(call *message.Call) { r.send(call, false) }

// send is Send; patient says that this goroutine may wait for the disk.
func (r *Replica) send(call *message.Call, patient bool) {
	if !r.admit(call) {
		call.Completion.Done(call)
		return
	}
	once := uint64(1)
	if patient {
		once = 0 // it was counted when it came
	}
	switch call.Kind {
	case message.Read:
		r.counters.Reads.Add(once)
		r.read(call, patient)
	case message.ReadMany:
		r.readMany(call, patient)
	case message.Prepare:
		r.counters.Prepares.Add(once)
		r.prepare(call, patient)
	case message.Accept:
		r.counters.Accepts.Add(once)
		r.accept(call, patient)
	case message.Configure:
		r.configure(call)
	case message.Transfer:
		r.transfer(call, patient)
	case message.Sums:
		r.sumsOf(call, patient)
	case message.Pulled:
		r.answerPulled(call)
	case message.PrepareAll:
		r.counters.Prepares.Add(once)
		r.prepareAll(call, patient)
	case message.Purge:
		r.purge(call, patient)
	default:
		call.Reply = message.Reply{Status: message.Invalid}
		call.Completion.Done(call)
	}
}

// admit checks what comes before the register's own rules; on false the reply is filled.
func (r *Replica) admit(call *message.Call) bool {
	call.Reply = message.Reply{Status: message.OK}
	if call.Kind == message.Configure || call.Kind == message.ReadMany {
		switch {
		case !r.voting.Load():
			call.Reply.Status = message.NotVoting
		case int(call.Partition) >= len(r.parts):
			call.Reply.Status = message.Invalid
		}
		return call.Reply.Status == message.OK
	}
	switch s := r.serve(call.Partition, call.Epoch, len(call.Key)); s {
	case message.OK:
		if r.sealed.Load() && proposal(call.Kind) {
			call.Reply.Status = message.NotVoting
			return false
		}
		return true
	case message.WrongEpoch:
		call.Reply = message.Reply{Status: s, Configuration: r.opts.Configurations.Configuration(call.Partition)}
	default:
		call.Reply.Status = s
	}
	return false
}

// serve says OK if this replica takes requests of that epoch for partition p.
func (r *Replica) serve(p ring.Partition, epoch uint32, key int) message.Status {
	if !r.voting.Load() {
		return message.NotVoting
	}
	if int(p) >= len(r.parts) || key > record.MaxInternalKey {
		return message.Invalid
	}
	if epoch != 0 && epoch == r.parts[p].serves.Load() {
		return message.OK
	}
	r.confMu.Lock()
	conf := r.opts.Configurations.Configuration(p)
	_, running := r.cleans.running[p]
	switch {
	case running:
	case r.unclean(p, conf):
		running = true
		r.cleans.running[p] = struct{}{}
		go r.cleanLate(p, conf)
	case conf.Has(r.opts.Self):
		r.parts[p].serves.Store(conf.Epoch)
	}
	r.confMu.Unlock()
	if running {
		return message.Busy
	}
	if epoch != conf.Epoch {
		r.counters.WrongEpochs.Add(1)
		return message.WrongEpoch
	}
	if !conf.Has(r.opts.Self) {
		return message.NotReplica
	}
	return message.OK
}

// read answers with the durable state; it neither waits for nor looks at staged writes.
func (r *Replica) read(call *message.Call, patient bool) {
	s := r.opts.Storage
	if call.Digest {
		if b, _, known := s.PeekBallot(call.Partition, call.Hash, call.Key); known {
			call.Reply.Ballot = b
			call.Completion.Done(call)
			return
		}
	}
	enc, found, known, err := r.load(call.Partition, call.Hash, call.Key, call.Room[:0], patient)
	call.Room = enc
	switch {
	case !known && call.InMemory:
		call.Reply.Status = message.Busy
	case !known:
		r.aside(call)
		return
	case err != nil:
		r.refuse(call, err)
	case found:
		call.Reply.Ballot = record.PeekBallot(enc)
		if !call.Digest {
			call.Reply.Record = enc
		}
	case call.Unborn: // this node's coordinator wants to know what it would start from
		if enc = r.unborn(enc, call.Partition, call.Key); enc != nil {
			call.Reply.Record, call.Room = enc, enc
		}
	}
	call.Completion.Done(call)
}

// ReadNow is a Read that is answered from memory: with the ballot, and with the record appended to
// dst; known=false: only Send can tell. It does not block.
func (r *Replica) ReadNow(dst []byte, p ring.Partition, epoch uint32, hash uint64, key []byte) (s message.Status, b record.Ballot, enc []byte, known bool) {
	if s = r.serve(p, epoch, len(key)); s != message.OK {
		return s, b, dst, true
	}
	enc, found, known, err := r.opts.Storage.Peek(dst, p, hash, key)
	if err != nil || !known {
		return s, b, dst, false // errors are Send's to deal with
	}
	r.counters.Reads.Add(1)
	if found {
		b = record.PeekBallot(enc[len(dst):])
	}
	return s, b, enc, true
}

// WarmIndex and WarmEntry say that a key of that hash is about to be read: before a batch of reads it
// pays to say so, first the one for all of them, then the other.
func (r *Replica) WarmIndex(hash uint64) {
	if r.warmer != nil {
		r.warmer.WarmIndex(hash)
	}
}

// WarmEntry follows WarmIndex.
func (r *Replica) WarmEntry(hash uint64) {
	if r.warmer != nil {
		r.warmer.WarmEntry(hash)
	}
}

// warmItems warms the keys of a ReadMany.
func (r *Replica) warmItems(items []byte) {
	if r.warmer == nil {
		return
	}
	first, rest, ok := message.NextItem(items)
	if !ok || len(rest) == 0 {
		return
	}
	r.warmer.WarmIndex(ring.Hash(first.Key))
	for it, rest, ok := message.NextItem(rest); ok; it, rest, ok = message.NextItem(rest) {
		r.warmer.WarmIndex(ring.Hash(it.Key))
	}
	for it, rest, ok := message.NextItem(items); ok; it, rest, ok = message.NextItem(rest) {
		r.warmer.WarmEntry(ring.Hash(it.Key))
	}
}

// readMany answers each item as read would.
func (r *Replica) readMany(call *message.Call, patient bool) {
	r.warmItems(call.Request.Items)
	answers := call.Room[:0]
	reads := uint64(0)
	for rest := call.Request.Items; len(rest) > 0; reads++ {
		it, next, ok := message.NextItem(rest)
		if !ok {
			call.Reply.Status = message.Invalid
			call.Completion.Done(call)
			return
		}
		rest = next
		var known bool
		if answers, known = r.answer(answers, &it, patient); !known {
			r.aside(call)
			return
		}
	}
	r.counters.Reads.Add(reads)
	call.Reply.Items, call.Room = answers, answers
	call.Completion.Done(call)
}

// answer appends the answer to one item; known=false: that takes the disk, and this goroutine is not
// patient.
func (r *Replica) answer(dst []byte, it *message.Item, patient bool) (answers []byte, known bool) {
	at := len(dst)
	dst = message.BeginAnswer(dst)
	hash := ring.Hash(it.Key)
	p := ring.PartitionOf(hash, len(r.parts))
	if s := r.serve(p, it.Epoch, len(it.Key)); s != message.OK {
		return message.EndAnswer(dst, at, s, record.Ballot{}), true
	}
	if it.Digest {
		if b, _, known := r.opts.Storage.PeekBallot(p, hash, it.Key); known {
			return message.EndAnswer(dst, at, message.OK, b), true
		}
	}
	// Peek and Get append, and answer what they appended.
	enc, found, known, err := r.load(p, hash, it.Key, dst, patient)
	switch {
	case !known:
		return dst[:at], false
	case err != nil:
		return message.EndAnswer(dst, at, r.fault(p, err), record.Ballot{}), true
	case !found:
		return message.EndAnswer(dst, at, message.OK, record.Ballot{}), true
	}
	b := record.PeekBallot(enc[len(dst):])
	if it.Digest {
		enc = enc[:len(dst)]
	}
	return message.EndAnswer(enc, at, message.OK, b), true
}

// load appends to dst what memory has, and the disk if patient; known=false: only the disk can tell.
func (r *Replica) load(p ring.Partition, hash uint64, key, dst []byte, patient bool) (enc []byte, found, known bool, err error) {
	enc, found, known, err = r.opts.Storage.Peek(dst, p, hash, key)
	if known || err != nil || !patient {
		return enc, found, known || err != nil, err
	}
	r.counters.DiskReads.Add(1)
	enc, found, err = r.opts.Storage.Get(dst, p, hash, key)
	return enc, found, true, err
}

// refuse turns a store error into a status.
func (r *Replica) refuse(call *message.Call, err error) {
	call.Reply.Record = nil
	call.Reply.Status = r.fault(call.Partition, err)
}

// fault is the status for a store error, and what follows from it.
func (r *Replica) fault(p ring.Partition, err error) message.Status {
	switch {
	case isCorrupt(err):
		r.counters.Corrupt.Add(1)
		r.opts.Logger.Error("corrupt record", "partition", p, "error", err)
		return message.Corrupt
	case r.opts.Refused(err):
		return message.Busy
	}
	// The write may or may not be on disk, and the store takes no more: whatever this replica would
	// say from now on could be forgotten, so it says nothing.
	r.voting.Store(false)
	r.opts.Logger.Error("store failed, this node stops voting; restart it when the disk is well", "error", err)
	return message.TimedOut
}
