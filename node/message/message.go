// Package message defines what coordinators say to replicas and what replicas answer
// (CONSISTENCY: "The register"), as values and as bytes. It does no I/O.
//
// It is a room of its own, below quorum, replica and peer, because a consumer's interface
// (quorum.Replica) can only be met by a sibling if both speak types from below.
package message

import (
	"slices"
	"time"

	"kai/node/record"
	"kai/node/ring"
)

// Kind of a request.
type Kind uint8

const (
	// Read asks for the accepted state of a key (Digest: for its ballot only).
	Read Kind = 1 + iota
	// Prepare asks for a promise to accept nothing below Ballot.
	Prepare
	// Accept asks to accept Record (which carries Ballot), and to promise Next.
	Accept
	// Mutate asks a coordinator to run Op; it is how mutations are forwarded.
	Mutate
	// Configure tells a replica that is behind the configuration of Partition.
	Configure
	// Flush asks a node to delete every live record it holds, by mutations (flush_all). Key is the
	// node's id.
	Flush
	// ReadMany is a Read of several keys, whatever their partitions: see Items. The partition, epoch
	// and key of the request itself mean nothing.
	ReadMany
	// Transfer asks a replica for a page of Partition's records: those behind Key, from the first on if
	// that is empty. Items of the reply is a page. With Items, a LeafSet, only records of those leaves are
	// asked for, of whatever configuration.
	Transfer
	// Pulled asks a replica that is new in the joint configuration Epoch whether it has all that its
	// old members held: OK, or Busy for not yet.
	Pulled
	// Configurations asks a node which configurations it knows that are newer than those of Items: the
	// epochs of the partitions from Partition on, 4 bytes each. Items of the reply is what
	// node/placement makes of it.
	Configurations
	// Sums asks a replica for the sums of Partition's leaves: Items of the reply, 8 bytes each. With Items,
	// 8 bytes, the root of the asker's own: the reply has none if the replica's root is the same.
	Sums
	// Purge is about the dead records of Partition that Items lists, by AppendDead. With Digest it asks a
	// replica to confirm them, under the purge fence Ballot; without, to forget those that all confirmed. Items
	// of the reply: one byte each, 1 for yes.
	Purge
	// PrepareAll is a Prepare at Ballot of all keys of Partition. Items of the reply are the sums of its leaves,
	// as of then: see PromisedLeaf.
	PrepareAll
	// Hints tells a node of keys whose newest state it has missed, by AppendItem, at most MaxItems, so that it
	// reads them from the sender, whose id is Key. It is answered when it has: Items of the reply is an
	// answer, without a record, for each; one that is not OK has not been taken over.
	Hints
	// Report asks a node how its transfers go: Items of the reply is what package node makes of it.
	Report
	// Gather asks a member of Partition to take over what the members of Configuration hold that it does not: OK when
	// that is done, Busy until then.
	Gather
	// Digests asks a node in which groups of partitions it knows other epochs than the sender. Items, and
	// those of the reply, are what node/placement makes of them.
	Digests
	numKinds
)

var kindNames = [numKinds]string{"none", "read", "prepare", "accept", "mutate", "configure", "flush", "read_many", "transfer", "pulled", "configurations",
	"sums", "purge", "prepare_all", "hints", "report", "gather", "digests"}

func (k Kind) String() string {
	if k < numKinds {
		return kindNames[k]
	}
	return "unknown"
}

// Versions of the protocol: which requests a node understands. Two nodes agree on the newest that both know, at
// the handshake of each link.
const (
	// Oldest is that of the first builds: single keys, fixed configurations.
	Oldest uint8 = 1
	// Newest has all kinds: moves, repair, hints, purges, promises of whole partitions, restored records.
	Newest uint8 = 2
)

// Since is the oldest version of the protocol in which a node understands the request.
func (q *Request) Since() uint8 {
	if q.Kind > Flush || q.Kind == Mutate && q.Op.Kind >= record.Restore || record.Internal(q.Key) {
		return Newest
	}
	return Oldest
}

// TraceLen is the room for trace context: 16 bytes trace id, 8 span id, 1 flags.
const TraceLen = 25

// Sampled reports whether the context of a trace says that all nodes are to keep their part: the lowest bit of its flags.
func Sampled(trace *[TraceLen]byte) bool { return trace[TraceLen-1]&1 != 0 }

// Request is one message to one node. Slices belong to the caller of Send and need to stay valid
// until Send returns.
type Request struct {
	Kind   Kind
	Digest bool
	// InMemory asks a Read to be answered before Send returns: as Busy, if that takes the disk. It is
	// for the local replica, and not sent.
	InMemory bool
	// Unborn asks a Read, as every Prepare does, for the floor of the lineage of a key that is not there. It is for
	// the local replica, and not sent.
	Unborn    bool
	Partition ring.Partition
	// Epoch of the configuration the sender goes by.
	Epoch uint32
	// Hash is ring.Hash(Key).
	Hash   uint64
	Key    []byte
	Ballot record.Ballot
	// Next is the ballot to promise along with an Accept; zero for none.
	Next record.Ballot
	// Record is the encoded record of an Accept.
	Record []byte
	// Items of a ReadMany, by AppendItem.
	Items []byte
	// Op of a Mutate; Op.Key equals Key.
	Op record.Op
	// Configuration of a Configure.
	Configuration ring.Configuration
	// Timeout is how long the sender waits, from Send on; on the wire in whole milliseconds.
	Timeout time.Duration
	Trace   [TraceLen]byte
	// Came is when a link read the request, or this node's coordinator made it, by clock.Now; 0: unknown. It is not sent.
	Came time.Duration
}

// Status of a reply: a closed set.
type Status uint8

const (
	// OK: done; Ballot is the accepted ballot of the key (Read, Prepare), Record its state.
	OK Status = 1 + iota
	// Nack: a higher ballot was promised or accepted; Ballot is that ballot.
	Nack
	// ClockReject: the ballot is too far ahead of the replica's clock.
	ClockReject
	// WrongEpoch: the replica goes by Configuration. If that is older than the sender's, the
	// sender may Configure the replica and try again.
	WrongEpoch
	// NotReplica: the node is no replica of the partition.
	NotReplica
	// Corrupt: the stored state failed its checksum.
	Corrupt
	// NotVoting: the node refuses to take part (amnesia, failed disk, shutting down).
	NotVoting
	// Busy: a bounded queue is full; nothing was done.
	Busy
	// Unreachable: the request was not sent; nothing was done. Made by the sender's side.
	Unreachable
	// TimedOut: no answer in time, or the connection broke after sending; anything may have been
	// done. Made by the sender's side.
	TimedOut
	// Invalid: the node could not understand the request.
	Invalid
	// Unsupported: the request was not sent, since the node's build is older than it is (see Request.Since); nothing was
	// done. Made by the sender's side.
	Unsupported
	numStatus
)

var statusNames = [numStatus]string{"none", "ok", "nack", "clock_reject", "wrong_epoch", "not_replica", "corrupt", "not_voting", "busy", "unreachable", "timed_out", "invalid", "unsupported"}

func (s Status) String() string {
	if s < numStatus {
		return statusNames[s]
	}
	return "unknown"
}

// Refused reports a status after which the request has certainly had no effect.
func (s Status) Refused() bool {
	switch s {
	case ClockReject, WrongEpoch, NotReplica, NotVoting, Busy, Unreachable, Invalid, Unsupported:
		return true
	}
	return false
}

// Reply is the answer to one Request. Its slices are valid only until Done returns, and belong to
// whoever answered: nobody else writes to them.
type Reply struct {
	Status Status
	Ballot record.Ballot
	// Record is the encoded, checked state; empty for a digest or a key never written.
	Record        []byte
	Configuration ring.Configuration
	// Items of a ReadMany, by AppendAnswer, in the order of the request's; of a Transfer, a page.
	Items []byte
	// Result of a Mutate.
	Result record.Result
	// Timing is the replica's own account of the request, for traces.
	Timing Timing
	// Came is when a link read the reply, or this node's replica had it, by clock.Now; 0: unknown, so just now. It is not sent.
	Came time.Duration
}

// Timing is a replica's own account of one request, in microseconds, saturating.
type Timing struct {
	Queue uint32 // waiting before it was looked at
	Store uint32 // in the store, commit included
}

// Call is a request, or its answer. Whoever it is sent to has it until Send returns, no longer, and
// answers by whatever Call it has at hand: so a sender can use one again at once, for the next member
// even, and nothing of it waits in memory, getting cold, while its request is under way.
type Call struct {
	Request
	Reply
	// Completion is told the answer.
	Completion Completion
	// Index is the sender's to use; the answer has it, too.
	Index int
	// Room is the sender's memory for a replica of this process that answers before Send returns: it
	// appends to Room[:0] what it answers with, and leaves it here when it has grown. It is apart from
	// Reply, whose slices may be a link's: a Call that is used again must not take those for its own.
	Room []byte
}

// Keep returns a call for whoever answers c only after Send has returned: a copy, with memory of its
// own, but for the lists of a Configuration, which nobody changes. It takes Room along, which Reply's
// slices may be in.
func (c *Call) Keep() *Call {
	k := *c
	c.Room = nil
	k.Key, k.Request.Record, k.Request.Items = slices.Clone(c.Key), slices.Clone(c.Request.Record), slices.Clone(c.Request.Items)
	k.Op.Key, k.Op.Value = k.Key, slices.Clone(c.Op.Value)
	return &k
}

// Completion hears of answered calls.
type Completion interface {
	// Done is called exactly once per Send, on any goroutine, perhaps before Send returns, with a Call
	// whose Reply and Index count; its request need not be the one that was sent. It must not block,
	// and must copy what it keeps: the Call and its slices are good until Done returns.
	Done(*Call)
}
