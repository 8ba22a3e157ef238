package message

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"kai/node/record"
)

// Version of the layout of requests and replies that this build writes and reads; it is the same in all versions of the
// protocol so far. Control frames
// (handshake, heartbeat) carry version 0: their layout is the same for all versions, because they
// are what versions are agreed with.
const Version = 1

// Frame types: a request has its Kind as type, a reply TypeReply. From TypeControl on they belong
// to whoever carries the frames (node/peer).
const (
	TypeReply   uint8 = 0x10
	TypeControl uint8 = 0x20
)

// Layout of a frame, little endian. The head is the same for all versions.
//
//	0  length of what follows (4)   4  crc32c of what follows (4)
//	8  version   9  type   10 flags (2)   12 id (8)   20 body
const (
	headLen   = 20
	crcAt     = 4
	versionAt = 8
	typeAt    = 9
	flagsAt   = 10
	idAt      = 12
)

// Bounds of what a message may hold beside its value.
const (
	// MaxNodeID is the longest node id a configuration may name, in bytes.
	MaxNodeID = 64
	// MaxDetail is how much of Result.Detail travels, in bytes.
	MaxDetail = 255
	// maxFixed is above everything but record and value: head, key, trace, ballots, a joint
	// configuration of ring.MaxReplicas twice, the fixed parts of Op or Result, Detail.
	maxFixed = 2048
)

// MaxFrame is the largest frame, in bytes, of messages whose values have at most maxValue bytes.
func MaxFrame(maxValue int) int { return max(maxValue+record.Overhead, maxAnswers+maxItems) + maxFixed }

var (
	// ErrDamaged reports bytes that are not a frame: the stream they came from cannot be trusted
	// any more.
	ErrDamaged = errors.New("message: damaged frame")
	// ErrInvalid reports an undamaged frame that does not hold a message this build understands.
	// The frames around it are good.
	ErrInvalid = errors.New("message: invalid")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Head is the part of a frame that says what it is.
type Head struct {
	Version uint8
	Type    uint8
	Flags   uint16
	ID      uint64
}

// FrameSize returns the size of the frame that buf starts with, or 0 when buf is too short to tell.
// The frame is complete when len(buf) ≥ size. A size that no frame of at most maxFrame bytes has is
// ErrDamaged.
func FrameSize(buf []byte, maxFrame int) (int, error) {
	if len(buf) < crcAt {
		return 0, nil
	}
	n := uint64(binary.LittleEndian.Uint32(buf)) + crcAt
	if n < headLen || n > uint64(maxFrame) {
		return 0, fmt.Errorf("%w: %d bytes, want %d to %d", ErrDamaged, n, headLen, maxFrame)
	}
	return int(n), nil
}

// ParseHead verifies a complete frame, as cut by FrameSize, and returns its head.
func ParseHead(frame []byte) (Head, error) {
	if len(frame) < headLen || int(binary.LittleEndian.Uint32(frame)) != len(frame)-crcAt {
		return Head{}, fmt.Errorf("%w: length", ErrDamaged)
	}
	if binary.LittleEndian.Uint32(frame[crcAt:]) != crc32.Checksum(frame[versionAt:], castagnoli) {
		return Head{}, fmt.Errorf("%w: checksum", ErrDamaged)
	}
	return Head{
		Version: frame[versionAt],
		Type:    frame[typeAt],
		Flags:   binary.LittleEndian.Uint16(frame[flagsAt:]),
		ID:      binary.LittleEndian.Uint64(frame[idAt:]),
	}, nil
}

// AppendControl appends a control frame; typ is TypeControl or above.
func AppendControl(dst []byte, typ uint8, id uint64, body []byte) []byte {
	at := len(dst)
	dst = open(dst, 0, typ, 0, id)
	return seal(append(dst, body...), at)
}

// Body is what follows the head of a frame that ParseHead accepted.
func Body(frame []byte) []byte { return frame[headLen:] }

// open appends a head whose length and checksum seal fills in.
func open(dst []byte, version, typ uint8, flags uint16, id uint64) []byte {
	var h [headLen]byte
	h[versionAt], h[typeAt] = version, typ
	binary.LittleEndian.PutUint16(h[flagsAt:], flags)
	binary.LittleEndian.PutUint64(h[idAt:], id)
	return append(dst, h[:]...)
}

// seal completes the frame that starts at dst[at].
func seal(dst []byte, at int) []byte {
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-crcAt))
	binary.LittleEndian.PutUint32(dst[at+crcAt:], crc32.Checksum(dst[at+versionAt:], castagnoli))
	return dst
}

// cursor takes fields off the front of a body. Reading past the end gives zeroes and sets bad, so
// that a parser checks once, at its end.
type cursor struct {
	b   []byte
	bad bool
}

// take returns the next n bytes, or nil.
func (c *cursor) take(n int) []byte {
	if n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u8() uint8 {
	if v := c.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if v := c.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if v := c.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

// long returns the bytes behind a four-byte length.
func (c *cursor) long() []byte {
	n := c.u32()
	if uint64(n) > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	return c.take(int(n))
}

// short returns the bytes behind a one-byte length.
func (c *cursor) short() []byte { return c.take(int(c.u8())) }

// end reports whether the body was as long as its fields said.
func (c *cursor) end() error {
	if c.bad {
		return fmt.Errorf("%w: cut short", ErrInvalid)
	}
	if len(c.b) != 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrInvalid, len(c.b))
	}
	return nil
}

func appendLong(dst, v []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(v))), v...)
}

func appendShort[T ~string | ~[]byte](dst []byte, v T) []byte {
	return append(append(dst, byte(len(v))), v...)
}
