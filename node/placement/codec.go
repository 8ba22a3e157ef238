package placement

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"kai/node/ring"
)

// A configuration on disk, integers big-endian:
//
//	1 byte   version of the format, 1
//	4 bytes  epoch
//	members  1 byte count, then for each: 1 byte length, node id
//	next     the same; count 0 when stable
//	4 bytes  CRC-32C of all that stands before
const (
	version = 1
	maxID   = 64
)

// ErrCorrupt says that bytes are not an encoded configuration. It must never be read as "there is
// no configuration": a node that forgets an epoch could serve under an older one.
var ErrCorrupt = errors.New("corrupt configuration")

// AppendConfiguration appends the encoding of c, which must be one that New or Adopt would take.
func AppendConfiguration(b []byte, c ring.Configuration) []byte {
	start := len(b)
	b = append(b, version)
	b = binary.BigEndian.AppendUint32(b, c.Epoch)
	b = appendIDs(b, c.Members)
	b = appendIDs(b, c.Next)
	return binary.BigEndian.AppendUint32(b, checksum(b[start:]))
}

// DecodeConfiguration reads what AppendConfiguration wrote; the result shares nothing with b.
// Errors are ErrCorrupt, or say that a newer build wrote b.
func DecodeConfiguration(b []byte) (ring.Configuration, error) {
	var c ring.Configuration
	if len(b) < 1+4+2+4 {
		return c, fmt.Errorf("placement: %d bytes: %w", len(b), ErrCorrupt)
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if checksum(body) != sum {
		return c, fmt.Errorf("placement: checksum: %w", ErrCorrupt)
	}
	if body[0] != version {
		return c, fmt.Errorf("placement: configuration of format %d, this build reads %d: use a newer build", body[0], version)
	}
	c.Epoch = binary.BigEndian.Uint32(body[1:])
	rest := body[5:]
	var ok1, ok2 bool
	c.Members, rest, ok1 = readIDs(rest)
	c.Next, rest, ok2 = readIDs(rest)
	if !ok1 || !ok2 || len(rest) != 0 {
		return ring.Configuration{}, fmt.Errorf("placement: node ids: %w", ErrCorrupt)
	}
	if err := check(c); err != nil {
		return ring.Configuration{}, fmt.Errorf("placement: %w: %w", err, ErrCorrupt)
	}
	return c, nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func appendIDs(b []byte, ids []ring.NodeID) []byte {
	b = append(b, byte(len(ids)))
	for _, id := range ids {
		b = append(b, byte(len(id)))
		b = append(b, id...)
	}
	return b
}

func readIDs(b []byte) (ids []ring.NodeID, rest []byte, ok bool) {
	if len(b) < 1 {
		return nil, nil, false
	}
	count := int(b[0])
	b = b[1:]
	for range count {
		if len(b) < 1 || len(b)-1 < int(b[0]) {
			return nil, nil, false
		}
		n := int(b[0])
		ids = append(ids, ring.NodeID(b[1:1+n]))
		b = b[1+n:]
	}
	return ids, b, true
}
