// Package replica holds the rules one replica obeys: read, promise, accept (CONSISTENCY: "The
// register"; CASPaxos, arXiv 1802.07000). It is pure over a storage interface: no network, no
// goroutines of its own, the clock injected.
package replica

import (
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
	// PromiseSlots is the size of a partition's table of promises, a power of two ≥ 256.
	// Keys that share a slot share promises: safe, and costs a round trip now and then.
	PromiseSlots int
	// Refused tells which store errors mean that certainly nothing was done.
	Refused func(error) bool
	// Wall tells the time that ballots are held against.
	Wall   func() time.Time
	Logger *slog.Logger
}

const stripes = 256

// Replica answers the register's messages for one node. Safe for concurrent use.
type Replica struct {
	opts     Options
	promises []atomic.Pointer[[]record.Ballot] // by partition; entries guarded by the slot's stripe
	stripes  [stripes]stripe
	voting   atomic.Bool
	commits  sync.Pool // of *commit
	counters Counters
	disk     diskQueue

	confMu   sync.Mutex
	adopting map[ring.Partition]struct{} // their next configuration is on its way to the disk
	// serves has, by partition, the epoch of its configuration if this node is a replica by it, or 0
	// for "look closer": what every message asks, in one word. Written under confMu.
	serves []atomic.Uint32
}

// Counters count what the replica answered, since start.
type Counters struct {
	Reads, Prepares, Accepts, Nacks, ClockRejects, WrongEpochs, Corrupt, DiskReads atomic.Uint64
}

// stripe guards the keys whose hash has its number as low byte: their promises and the writes that
// the store has not yet made durable.
type stripe struct {
	mu      sync.Mutex
	pending map[uint64]*pending
	spare   *pending // for the next key, or nil
}

// pending is a key with writes staged and not yet durable. Keys with equal hashes share it, which
// only makes them wait for each other.
type pending struct {
	newest  record.Ballot
	writes  int
	waiting []*message.Call
}

// New makes a replica that votes.
func New(opts Options) *Replica {
	r := &Replica{opts: opts, promises: make([]atomic.Pointer[[]record.Ballot], opts.Partitions),
		adopting: map[ring.Partition]struct{}{}, serves: make([]atomic.Uint32, opts.Partitions)}
	for i := range r.stripes {
		r.stripes[i].pending = map[uint64]*pending{}
	}
	r.commits.New = func() any { return &commit{r: r} }
	r.voting.Store(true)
	return r
}

// SetVoting says whether the replica takes part. One that does not answers NotVoting.
func (r *Replica) SetVoting(on bool) { r.voting.Store(on) }

// Healthy reports whether the replica takes part.
func (r *Replica) Healthy() bool { return r.voting.Load() }

// Counters returns the replica's counters.
func (r *Replica) Counters() *Counters { return &r.counters }

// Flush has nothing to push out: a local replica answers as it is asked.
func (r *Replica) Flush() {}

// Send answers call: at once, or when the store has committed, or, if that takes a disk read, on
// another goroutine. It does not block.
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
	case message.Prepare:
		r.counters.Prepares.Add(once)
		r.prepare(call, patient)
	case message.Accept:
		r.counters.Accepts.Add(once)
		r.accept(call, patient)
	case message.Configure:
		r.configure(call)
	default:
		call.Reply = message.Reply{Status: message.Invalid}
		call.Completion.Done(call)
	}
}

// admit checks what comes before the register's own rules; on false the reply is filled.
func (r *Replica) admit(call *message.Call) bool {
	call.Reply = message.Reply{Status: message.OK, Record: call.Reply.Record[:0]}
	if !r.voting.Load() {
		call.Reply.Status = message.NotVoting
		return false
	}
	if int(call.Partition) >= len(r.promises) || len(call.Key) > record.MaxKey {
		call.Reply.Status = message.Invalid
		return false
	}
	if call.Kind == message.Configure || call.Epoch != 0 && call.Epoch == r.serves[call.Partition].Load() {
		return true
	}
	r.confMu.Lock()
	conf := r.opts.Configurations.Configuration(call.Partition)
	if conf.Has(r.opts.Self) {
		r.serves[call.Partition].Store(conf.Epoch)
	}
	r.confMu.Unlock()
	if call.Epoch != conf.Epoch {
		r.counters.WrongEpochs.Add(1)
		call.Reply = message.Reply{Status: message.WrongEpoch, Configuration: conf}
		return false
	}
	if !conf.Has(r.opts.Self) {
		call.Reply.Status = message.NotReplica
		return false
	}
	return true
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
	enc, found, known, err := r.load(call.Partition, call.Hash, call.Key, call.Reply.Record, patient)
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
	}
	call.Completion.Done(call)
}

// load looks into memory, and onto the disk if patient; known=false: only the disk can tell.
func (r *Replica) load(p ring.Partition, hash uint64, key, buf []byte, patient bool) (enc []byte, found, known bool, err error) {
	enc, found, known, err = r.opts.Storage.Peek(buf[:0], p, hash, key)
	if known || err != nil || !patient {
		return enc, found, known || err != nil, err
	}
	r.counters.DiskReads.Add(1)
	enc, found, err = r.opts.Storage.Get(buf[:0], p, hash, key)
	return enc, found, true, err
}

// refuse turns a store error into a status.
func (r *Replica) refuse(call *message.Call, err error) {
	call.Reply.Record = call.Reply.Record[:0]
	switch {
	case isCorrupt(err):
		r.counters.Corrupt.Add(1)
		r.opts.Logger.Error("corrupt record", "partition", call.Partition, "error", err)
		call.Reply.Status = message.Corrupt
	case r.opts.Refused(err):
		call.Reply.Status = message.Busy
	default:
		// The write may or may not be on disk, and the store takes no more: whatever this replica
		// would say from now on could be forgotten, so it says nothing.
		r.voting.Store(false)
		r.opts.Logger.Error("store failed, this node stops voting; restart it when the disk is well", "error", err)
		call.Reply.Status = message.TimedOut
	}
}
