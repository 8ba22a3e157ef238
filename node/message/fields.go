package message

import (
	"encoding/binary"

	"kai/node/record"
	"kai/node/ring"
)

func appendBallot(dst []byte, b record.Ballot) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, b.Epoch)
	return binary.LittleEndian.AppendUint64(dst, uint64(b.Stamp))
}

func (c *cursor) ballot() record.Ballot {
	return record.Ballot{Epoch: c.u32(), Stamp: record.Stamp(c.u64())}
}

// A configuration is epoch (4), number of members (1), of next (1), and each id (1+n).
func appendConfiguration(dst []byte, v *ring.Configuration) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, v.Epoch)
	dst = append(dst, byte(len(v.Members)), byte(len(v.Next)))
	for _, id := range v.Members {
		dst = appendShort(dst, id)
	}
	for _, id := range v.Next {
		dst = appendShort(dst, id)
	}
	return dst
}

func (c *cursor) configuration() (v ring.Configuration) {
	v.Epoch = c.u32()
	members, next := c.u8(), c.u8()
	v.Members = c.nodeIDs(members)
	v.Next = c.nodeIDs(next)
	return v
}

// nodeIDs stops at the first id that is missing, so that a lying count costs nothing.
func (c *cursor) nodeIDs(n uint8) (ids []ring.NodeID) {
	for range n {
		id := c.short()
		if c.bad {
			return nil
		}
		ids = append(ids, ring.NodeID(id))
	}
	return ids
}

// An operation is kind (1) flags (4) expiry (4) cas (8) delta (8) value (4+n).
func appendOp(dst []byte, op *record.Op) []byte {
	dst = append(dst, byte(op.Kind))
	dst = binary.LittleEndian.AppendUint32(dst, op.Flags)
	dst = binary.LittleEndian.AppendUint32(dst, op.Expiry)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(op.CAS))
	dst = binary.LittleEndian.AppendUint64(dst, op.Delta)
	return appendLong(dst, op.Value)
}

func (c *cursor) op(op *record.Op) {
	op.Kind = record.OpKind(c.u8())
	op.Flags = c.u32()
	op.Expiry = c.u32()
	op.CAS = record.Version(c.u64())
	op.Delta = c.u64()
	op.Value = c.long()
}

// A result is status (1) flags (4) cas (8) number (8) detail (1+n) value (4+n).
func appendResult(dst []byte, r *record.Result) []byte {
	dst = append(dst, byte(r.Status))
	dst = binary.LittleEndian.AppendUint32(dst, r.Flags)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.CAS))
	dst = binary.LittleEndian.AppendUint64(dst, r.Number)
	dst = appendShort(dst, r.Detail[:min(len(r.Detail), MaxDetail)])
	return appendLong(dst, r.Value)
}

func (c *cursor) result(r *record.Result) {
	r.Status = record.Status(c.u8())
	r.Flags = c.u32()
	r.CAS = record.Version(c.u64())
	r.Number = c.u64()
	r.Detail = string(c.short())
	r.Value = c.long()
}
