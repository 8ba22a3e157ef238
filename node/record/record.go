// Package record defines the replicated unit of Kai: what a replica holds of one key, its encoding
// (the same bytes on the wire, in the commit log, in Badger and in the record cache), and the
// memcache operations as pure functions on it. It does no I/O and imports nothing of Kai.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// MaxKey is the longest key in bytes (memcache protocol.txt, "Keys").
const MaxKey = 250

// MaxInternalKey is the longest key in bytes of a record that Kai keeps for itself. Such keys are longer
// than MaxKey, so that no client can name one.
const MaxInternalKey = 254

// Internal reports whether key is one of those that Kai keeps for itself.
func Internal(key []byte) bool { return len(key) > MaxKey }

// Kind says whether a record holds a value.
type Kind uint8

const (
	// Absent is the kind of the zero Record: never written, or sealed while never written.
	Absent Kind = iota
	// Value holds a value.
	Value
	// Tombstone says that the key was deleted.
	Tombstone
)

// MaxRecent bounds Record.Recent.
const MaxRecent = 32

// Record is what a replica holds of one key. The zero Record stands for a key never seen.
type Record struct {
	// Ballot at which this state was accepted.
	Ballot Ballot
	// Version of the last real mutation.
	Version Version
	// CAS is the cas token a client sees: the version of the last mutation that memcache counts as
	// one. It differs from Version only after touch.
	CAS Version
	// Recent holds versions of earlier mutations folded into this state, newest first, without
	// Version itself; at most MaxRecent. Every version folded in that is not listed is ≤ Floor.
	Recent []Version
	// Floor is the highest version that may have been dropped from Recent.
	Floor Version
	Flags uint32
	// Expiry is in Unix seconds; 0 means never.
	Expiry uint32
	Kind   Kind
	Value  []byte
}

// Encoding, little endian. The checksum covers the key and everything behind itself.
//
//	0  format (1)      1  kind      2  bits (1 = cas present)   3  number of recent versions
//	4  crc32c          8  ballot epoch   12 ballot stamp   20 version   28 floor
//	36 flags           40 expiry    44 [cas 8] [recent 8 each] value
const (
	format    = 1
	headerLen = 44
	bitCAS    = 1
)

// Overhead is the largest number of bytes the encoding adds to a value.
const Overhead = headerLen + 8 + 8*MaxRecent

// ErrCorrupt reports bytes that are not a record of that key: damaged, truncated or misplaced.
// It must reach the client as "corrupt", never as "absent".
var ErrCorrupt = errors.New("record: corrupt")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, enc []byte) uint32 {
	c := crc32.Update(0, castagnoli, key)
	c = crc32.Update(c, castagnoli, enc[:4])
	return crc32.Update(c, castagnoli, enc[8:])
}

// Size is the length of r's encoding in bytes.
func (r *Record) Size() int {
	n := headerLen + 8*len(r.Recent) + len(r.Value)
	if r.CAS != r.Version {
		n += 8
	}
	return n
}

// Append appends the encoding of r, which belongs to key, to dst.
func Append(dst, key []byte, r *Record) []byte {
	at := len(dst)
	var h [headerLen]byte
	h[0], h[1], h[3] = format, byte(r.Kind), byte(len(r.Recent))
	if r.CAS != r.Version {
		h[2] |= bitCAS
	}
	binary.LittleEndian.PutUint32(h[8:], r.Ballot.Epoch)
	binary.LittleEndian.PutUint64(h[12:], uint64(r.Ballot.Stamp))
	binary.LittleEndian.PutUint64(h[20:], uint64(r.Version))
	binary.LittleEndian.PutUint64(h[28:], uint64(r.Floor))
	binary.LittleEndian.PutUint32(h[36:], r.Flags)
	binary.LittleEndian.PutUint32(h[40:], r.Expiry)
	dst = append(dst, h[:]...)
	if h[2]&bitCAS != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(r.CAS))
	}
	for _, v := range r.Recent {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(v))
	}
	dst = append(dst, r.Value...)
	binary.LittleEndian.PutUint32(dst[at+4:], checksum(key, dst[at:]))
	return dst
}

// Reballot rewrites the ballot of enc, a valid encoding that belongs to key, in place.
func Reballot(key, enc []byte, b Ballot) {
	binary.LittleEndian.PutUint32(enc[8:], b.Epoch)
	binary.LittleEndian.PutUint64(enc[12:], uint64(b.Stamp))
	binary.LittleEndian.PutUint32(enc[4:], checksum(key, enc))
}

// PeekBallot reads the ballot without verifying the checksum; enc must have passed Check before.
func PeekBallot(enc []byte) Ballot {
	if len(enc) < headerLen {
		return Ballot{}
	}
	return Ballot{
		Epoch: binary.LittleEndian.Uint32(enc[8:]),
		Stamp: Stamp(binary.LittleEndian.Uint64(enc[12:])),
	}
}

// Check verifies that enc is an undamaged record of key.
func Check(key, enc []byte) error {
	if len(enc) < headerLen {
		return fmt.Errorf("%w: %d bytes are too few", ErrCorrupt, len(enc))
	}
	if enc[0] != format {
		return fmt.Errorf("%w: format %d, this build reads %d", ErrCorrupt, enc[0], format)
	}
	if binary.LittleEndian.Uint32(enc[4:]) != checksum(key, enc) {
		return fmt.Errorf("%w: checksum mismatch", ErrCorrupt)
	}
	need := headerLen + 8*int(enc[3])
	if enc[2]&bitCAS != 0 {
		need += 8
	}
	if enc[1] > byte(Tombstone) || enc[2]&^bitCAS != 0 || enc[3] > MaxRecent || len(enc) < need {
		return fmt.Errorf("%w: impossible header", ErrCorrupt)
	}
	if enc[1] != byte(Value) && len(enc) != need {
		return fmt.Errorf("%w: a value in a record that holds none", ErrCorrupt)
	}
	return nil
}

// Decode checks enc and fills r from it. r.Value aliases enc; r.Recent reuses its capacity.
func Decode(key, enc []byte, r *Record) error {
	if err := Check(key, enc); err != nil {
		return err
	}
	View(enc, r)
	return nil
}

// View is Decode of an encoding that has passed Check before: the codec checks what comes from the
// network, the store what comes from the disk.
func View(enc []byte, r *Record) {
	r.Ballot = PeekBallot(enc)
	r.Kind = Kind(enc[1])
	r.Version = Version(binary.LittleEndian.Uint64(enc[20:]))
	r.Floor = Version(binary.LittleEndian.Uint64(enc[28:]))
	r.Flags = binary.LittleEndian.Uint32(enc[36:])
	r.Expiry = binary.LittleEndian.Uint32(enc[40:])
	r.CAS = r.Version
	rest := enc[headerLen:]
	if enc[2]&bitCAS != 0 {
		r.CAS = Version(binary.LittleEndian.Uint64(rest))
		rest = rest[8:]
	}
	r.Recent = r.Recent[:0]
	for range int(enc[3]) {
		r.Recent = append(r.Recent, Version(binary.LittleEndian.Uint64(rest)))
		rest = rest[8:]
	}
	r.Value = rest
}

// Folded says what the record's lineage tells about the mutation id.
type Folded uint8

const (
	// NotFolded: the mutation is not part of this state.
	NotFolded Folded = iota
	// IsFolded: the mutation is part of this state.
	IsFolded
	// MaybeFolded: the lineage is too short to tell.
	MaybeFolded
)

// Lineage says whether the mutation id is part of r's state.
func (r *Record) Lineage(id Version) Folded {
	if r.Version == id {
		return IsFolded
	}
	for _, v := range r.Recent {
		if v == id {
			return IsFolded
		}
	}
	if id <= r.Floor {
		return MaybeFolded
	}
	return NotFolded
}

// Succeed makes id the version of r (not its cas token: Apply does), moving the former version to
// Recent. Versions below keepFrom
// are dropped, because no operation that old can still be looking for itself.
func (r *Record) Succeed(id, keepFrom Version) {
	old := r.Recent
	r.Recent = make([]Version, 0, min(len(old)+1, MaxRecent))
	push := func(v Version) {
		switch {
		case v == 0:
		case v < keepFrom || len(r.Recent) == MaxRecent:
			r.Floor = max(r.Floor, v)
		default:
			r.Recent = append(r.Recent, v)
		}
	}
	push(r.Version)
	for _, v := range old {
		push(v)
	}
	r.Version = id
}

// PeekVersion reads the version as PeekBallot reads the ballot.
func PeekVersion(enc []byte) Version {
	if len(enc) < headerLen {
		return 0
	}
	return Version(binary.LittleEndian.Uint64(enc[20:]))
}

// Dead reports whether enc, which must have passed Check before, holds no value at now (Unix
// seconds), and when a value that it holds expires: 0 for never.
func Dead(enc []byte, now uint32) (dead bool, expires uint32) {
	if Kind(enc[1]) != Value {
		return true, 0
	}
	expires = binary.LittleEndian.Uint32(enc[40:])
	return expires != 0 && expires <= now, expires
}
