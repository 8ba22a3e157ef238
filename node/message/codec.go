package message

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"kai/node/record"
	"kai/node/ring"
)

// Flags of a request: which of the optional fields follow, in this order. A field that is zero is
// not sent, whatever the kind, so that encoding loses nothing. (Op, which only Mutate has, is sent
// with every Mutate.)
//
// Body of a request: partition (4) epoch (4) timeout in ms (4) key (1+n)
// [trace 25] [ballot 12] [next 12] [configuration] [op] [record (4+n)] [items (4+n)].
const (
	hasTrace = 1 << iota
	isDigest // a fact, not a field
	hasBallot
	hasNext
	hasConfiguration
	hasOp
	hasRecord
	hasItems
	requestFlags = 1<<iota - 1
)

// Flags of a reply. Body: status (1) queue µs (4) store µs (4)
// [ballot 12] [configuration] [result] [record (4+n)] [items (4+n)].
const (
	replyBallot = 1 << iota
	replyConfiguration
	replyResult
	replyRecord
	replyItems
	replyFlags = 1<<iota - 1
)

// itemsFit reports whether the kind has items if q has, and the other way round.
func (q *Request) itemsFit() bool {
	switch q.Kind {
	case ReadMany, Configurations, Digests, Purge, Hints:
		return len(q.Items) > 0
	case Transfer:
		return len(q.Items) == 0 || len(q.Items) == len(LeafSet{})
	case Sums:
		return len(q.Items) == 0 || len(q.Items) == 8
	}
	return len(q.Items) == 0
}

// hasKey reports a kind that is about one key.
func (k Kind) hasKey() bool { return k <= Mutate || k == Flush || k == Hints }

// Check refuses a request that the wire cannot carry, or that the other side would refuse to
// understand. Whoever appends requests of others calls it first.
func (q *Request) Check() error {
	switch {
	case q.Kind < Read || q.Kind >= numKinds:
		return fmt.Errorf("%w: kind %d", ErrInvalid, q.Kind)
	case len(q.Key) > record.MaxInternalKey:
		return fmt.Errorf("%w: key of %d bytes", ErrInvalid, len(q.Key))
	case len(q.Key) == 0 && q.Kind.hasKey():
		return fmt.Errorf("%w: no key", ErrInvalid)
	case !q.itemsFit():
		return fmt.Errorf("%w: items", ErrInvalid)
	case q.Kind == Accept && len(q.Record) == 0:
		return fmt.Errorf("%w: accept without a record", ErrInvalid)
	case !q.Op.Kind.Valid():
		return fmt.Errorf("%w: operation %d", ErrInvalid, q.Op.Kind)
	}
	return checkConfiguration(&q.Configuration)
}

func checkConfiguration(c *ring.Configuration) error {
	for _, ids := range [2][]ring.NodeID{c.Members, c.Next} {
		if len(ids) > ring.MaxReplicas {
			return fmt.Errorf("%w: configuration of %d replicas", ErrInvalid, len(ids))
		}
		for _, id := range ids {
			if len(id) > MaxNodeID {
				return fmt.Errorf("%w: node id of %d bytes", ErrInvalid, len(id))
			}
		}
	}
	return nil
}

// AppendRequest appends the frame of q, which must pass Check. Hash and Op.Key are not sent: both
// follow from Key. Timeout is rounded up to whole milliseconds, at least 0.
func AppendRequest(dst []byte, id uint64, q *Request) []byte {
	flags := q.flags()
	at := len(dst)
	dst = open(dst, Version, uint8(q.Kind), flags, id)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(q.Partition))
	dst = binary.LittleEndian.AppendUint32(dst, q.Epoch)
	dst = binary.LittleEndian.AppendUint32(dst, millis(q.Timeout))
	dst = appendShort(dst, q.Key)
	if flags&hasTrace != 0 {
		dst = append(dst, q.Trace[:]...)
	}
	if flags&hasBallot != 0 {
		dst = appendBallot(dst, q.Ballot)
	}
	if flags&hasNext != 0 {
		dst = appendBallot(dst, q.Next)
	}
	if flags&hasConfiguration != 0 {
		dst = appendConfiguration(dst, &q.Configuration)
	}
	if flags&hasOp != 0 {
		dst = appendOp(dst, &q.Op)
	}
	if flags&hasRecord != 0 {
		dst = appendLong(dst, q.Record)
	}
	if flags&hasItems != 0 {
		dst = appendLong(dst, q.Items)
	}
	return seal(dst, at)
}

func (q *Request) flags() (f uint16) {
	if q.Trace != [TraceLen]byte{} {
		f |= hasTrace
	}
	if q.Digest {
		f |= isDigest
	}
	if !q.Ballot.IsZero() {
		f |= hasBallot
	}
	if !q.Next.IsZero() {
		f |= hasNext
	}
	if q.Configuration.Epoch != 0 || q.Configuration.Members != nil || q.Configuration.Next != nil {
		f |= hasConfiguration
	}
	if q.Kind == Mutate {
		f |= hasOp
	}
	if len(q.Record) != 0 {
		f |= hasRecord
	}
	if len(q.Items) != 0 {
		f |= hasItems
	}
	return f
}

// ParseRequest fills q from a complete frame; its slices alias the frame. The record of an Accept
// is verified. With ErrInvalid, id is good and may be answered.
func ParseRequest(frame []byte, q *Request) (id uint64, err error) {
	h, err := ParseHead(frame)
	if err != nil {
		return 0, err
	}
	return h.ID, DecodeRequest(h, Body(frame), q)
}

// DecodeRequest is ParseRequest behind ParseHead.
func DecodeRequest(h Head, body []byte, q *Request) error {
	if h.Version != Version || h.Flags&^requestFlags != 0 {
		return fmt.Errorf("%w: version %d, flags %#x", ErrInvalid, h.Version, h.Flags)
	}
	c := cursor{b: body}
	*q = Request{Kind: Kind(h.Type), Digest: h.Flags&isDigest != 0}
	q.Partition = ring.Partition(c.u32())
	q.Epoch = c.u32()
	q.Timeout = time.Duration(c.u32()) * time.Millisecond
	if q.Key = c.short(); len(q.Key) != 0 {
		q.Hash = ring.Hash(q.Key)
	}
	if h.Flags&hasTrace != 0 {
		copy(q.Trace[:], c.take(TraceLen))
	}
	if h.Flags&hasBallot != 0 {
		q.Ballot = c.ballot()
	}
	if h.Flags&hasNext != 0 {
		q.Next = c.ballot()
	}
	if h.Flags&hasConfiguration != 0 {
		q.Configuration = c.configuration()
	}
	if h.Flags&hasOp != 0 {
		c.op(&q.Op)
		q.Op.Key = q.Key
	}
	if h.Flags&hasRecord != 0 {
		q.Record = c.long()
	}
	if h.Flags&hasItems != 0 {
		q.Items = c.long()
	}
	if err := c.end(); err != nil {
		return err
	}
	if err := q.Check(); err != nil {
		return err
	}
	if q.Kind == Mutate && h.Flags&hasOp == 0 {
		return fmt.Errorf("%w: mutate without an operation", ErrInvalid)
	}
	if len(q.Record) != 0 {
		if err := record.Check(q.Key, q.Record); err != nil {
			return fmt.Errorf("%w: record: %w", ErrInvalid, err)
		}
	}
	return nil
}

// AppendReply appends the frame of r. Detail beyond MaxDetail bytes is cut off.
func AppendReply(dst []byte, id uint64, r *Reply) []byte {
	flags := r.flags()
	at := len(dst)
	dst = open(dst, Version, TypeReply, flags, id)
	dst = append(dst, byte(r.Status))
	dst = binary.LittleEndian.AppendUint32(dst, r.Timing.Queue)
	dst = binary.LittleEndian.AppendUint32(dst, r.Timing.Store)
	if flags&replyBallot != 0 {
		dst = appendBallot(dst, r.Ballot)
	}
	if flags&replyConfiguration != 0 {
		dst = appendConfiguration(dst, &r.Configuration)
	}
	if flags&replyResult != 0 {
		dst = appendResult(dst, &r.Result)
	}
	if flags&replyRecord != 0 {
		dst = appendLong(dst, r.Record)
	}
	if flags&replyItems != 0 {
		dst = appendLong(dst, r.Items)
	}
	return seal(dst, at)
}

func (r *Reply) flags() (f uint16) {
	if !r.Ballot.IsZero() {
		f |= replyBallot
	}
	if r.Configuration.Epoch != 0 || r.Configuration.Members != nil || r.Configuration.Next != nil {
		f |= replyConfiguration
	}
	x := &r.Result
	if x.Status != 0 || x.Flags != 0 || x.CAS != 0 || x.Number != 0 || len(x.Value) != 0 || x.Detail != "" {
		f |= replyResult
	}
	if len(r.Record) != 0 {
		f |= replyRecord
	}
	if len(r.Items) != 0 {
		f |= replyItems
	}
	return f
}

// ParseReply fills r from a complete frame; its slices alias the frame. The record is verified to
// be one of key, the key that was asked for: if it is not, Status is Corrupt and Record nil.
func ParseReply(frame, key []byte, r *Reply) (id uint64, err error) {
	h, err := ParseHead(frame)
	if err != nil {
		return 0, err
	}
	return h.ID, DecodeReply(h, Body(frame), key, r)
}

// DecodeReply is ParseReply behind ParseHead, for who learns the key from the id.
func DecodeReply(h Head, body, key []byte, r *Reply) error {
	if h.Version != Version || h.Type != TypeReply || h.Flags&^replyFlags != 0 {
		return fmt.Errorf("%w: version %d, type %d, flags %#x", ErrInvalid, h.Version, h.Type, h.Flags)
	}
	c := cursor{b: body}
	*r = Reply{Status: Status(c.u8())}
	r.Timing = Timing{Queue: c.u32(), Store: c.u32()}
	if h.Flags&replyBallot != 0 {
		r.Ballot = c.ballot()
	}
	if h.Flags&replyConfiguration != 0 {
		r.Configuration = c.configuration()
	}
	if h.Flags&replyResult != 0 {
		c.result(&r.Result)
	}
	if h.Flags&replyRecord != 0 {
		r.Record = c.long()
	}
	if h.Flags&replyItems != 0 {
		r.Items = c.long()
	}
	if err := c.end(); err != nil {
		return err
	}
	if r.Status == 0 || r.Status >= numStatus || !r.Result.Status.Valid() {
		return fmt.Errorf("%w: status %d, result %d", ErrInvalid, r.Status, r.Result.Status)
	}
	if len(r.Record) != 0 && record.Check(key, r.Record) != nil {
		*r = Reply{Status: Corrupt, Timing: r.Timing}
	}
	return checkConfiguration(&r.Configuration)
}

// millis rounds up, so that a sender never waits longer than it says it does.
func millis(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32(min((d-1)/time.Millisecond+1, math.MaxUint32))
}
