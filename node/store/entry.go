package store

import (
	"encoding/binary"
	"hash/crc32"

	"kai/node/ring"
)

// kind of a log entry.
type kind uint8

const (
	kindRecord kind = 1 + iota
	// kindMeta: key is a name.
	kindMeta
	// kindMark opens each batch and says how far the log was durable when the batch was written.
	// It tells a torn tail (nothing later was promised) from damage (something was).
	kindMark
	// kindEnd closes a segment: the log goes on in the next.
	kindEnd
	// kindPurge removes the record of key. It has no value.
	kindPurge
)

// ofRecord says that an entry of this kind tells what a record is: its value, or that it is gone.
func (k kind) ofRecord() bool { return k == kindRecord || k == kindPurge }

// entry is one entry of the log. An encoded entry, little endian, starts at a multiple of 8:
//
//	0 crc32c (4)  4 length of value (4)  8 own offset in the segment (4)  12 partition (4)
//	16 hash (8)   24 kind (1)  25 length of key (1)  26 zero (2)  28 key, value, zeros up to 8
//
// The checksum starts from the segment's seed, so that no entry of a former life of the file can
// pass for one of this segment, and the offset keeps an entry from passing for one elsewhere in it.
type entry struct {
	kind  kind
	p     ring.Partition
	hash  uint64
	key   []byte
	value []byte
}

const (
	entryHeaderLen = 28
	markLen        = (entryHeaderLen + 16 + 7) &^ 7
	endLen         = (entryHeaderLen + 7) &^ 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func entrySize(key, value int) int { return (entryHeaderLen + key + value + 7) &^ 7 }

func (e *entry) size() int { return entrySize(len(e.key), len(e.value)) }

// put encodes e into buf, which has e.size() bytes.
func (e *entry) put(buf []byte, seed uint32, off uint32) {
	binary.LittleEndian.PutUint32(buf[4:], uint32(len(e.value)))
	binary.LittleEndian.PutUint32(buf[8:], off)
	binary.LittleEndian.PutUint32(buf[12:], uint32(e.p))
	binary.LittleEndian.PutUint64(buf[16:], e.hash)
	buf[24], buf[25], buf[26], buf[27] = byte(e.kind), byte(len(e.key)), 0, 0
	copy(buf[entryHeaderLen:], e.key)
	end := entryHeaderLen + len(e.key) + copy(buf[entryHeaderLen+len(e.key):], e.value)
	clear(buf[end:])
	binary.LittleEndian.PutUint32(buf, crc32.Update(seed, castagnoli, buf[4:end]))
}

// entryAt reads the entry at the start of buf, which is known to be one. The entry aliases buf.
func entryAt(buf []byte) (e entry, size int) {
	keyEnd := entryHeaderLen + int(buf[25])
	end := keyEnd + int(binary.LittleEndian.Uint32(buf[4:]))
	return entry{
		kind:  kind(buf[24]),
		p:     ring.Partition(binary.LittleEndian.Uint32(buf[12:])),
		hash:  binary.LittleEndian.Uint64(buf[16:]),
		key:   buf[entryHeaderLen:keyEnd:keyEnd],
		value: buf[keyEnd:end:end],
	}, (end + 7) &^ 7
}

// parseEntry reads the entry at the start of buf, if there is a whole one that belongs there.
func parseEntry(buf []byte, seed uint32, off uint32) (e entry, size int, ok bool) {
	if len(buf) < entryHeaderLen || binary.LittleEndian.Uint32(buf[8:]) != off ||
		buf[24] < byte(kindRecord) || buf[24] > byte(kindPurge) {
		return e, 0, false
	}
	end := uint64(entryHeaderLen) + uint64(buf[25]) + uint64(binary.LittleEndian.Uint32(buf[4:]))
	if end > uint64(len(buf)) || binary.LittleEndian.Uint32(buf) != crc32.Update(seed, castagnoli, buf[4:end]) {
		return e, 0, false
	}
	e, size = entryAt(buf)
	if e.kind == kindMark && len(e.value) != 16 || size > len(buf) {
		return e, 0, false
	}
	return e, size, true
}

// position is a place in the log.
type position struct {
	segment uint64
	offset  uint32
}

func (a position) less(b position) bool {
	return a.segment < b.segment || a.segment == b.segment && a.offset < b.offset
}

func (a position) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, a.segment)
	return binary.LittleEndian.AppendUint64(dst, uint64(a.offset))
}

// positionOf reads what append wrote; b has 16 bytes.
func positionOf(b []byte) position {
	return position{binary.LittleEndian.Uint64(b), uint32(binary.LittleEndian.Uint64(b[8:]))}
}
