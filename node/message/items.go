package message

import (
	"encoding/binary"

	"kai/node/record"
)

// Item is one key of a ReadMany.
type Item struct {
	// Epoch of the configuration of the key's partition that the sender goes by.
	Epoch  uint32
	Digest bool
	Key    []byte
}

// Answer is what a replica says of one Item: what it would have said of a Read.
type Answer struct {
	Status Status
	Ballot record.Ballot
	// Record is the encoded state, unverified: who takes it checks it against the key.
	Record []byte
}

const (
	itemDigest = 1 << iota
	itemFlags  = 1<<iota - 1
)

// maxAnswers bounds what the values of one ReadMany's answers may come to; the rest are Busy, to be
// asked for by themselves.
const maxAnswers = 256 << 10

// MaxItems bounds the items of one ReadMany; maxItems is their answers without values, and more.
const (
	MaxItems = 64
	maxItems = 64 << 10
)

// AppendItem appends an item: flags (1) epoch (4) key (1+n).
func AppendItem(dst []byte, it Item) []byte {
	var flags byte
	if it.Digest {
		flags = itemDigest
	}
	dst = append(dst, flags)
	dst = binary.LittleEndian.AppendUint32(dst, it.Epoch)
	return appendShort(dst, it.Key)
}

// NextItem reads the first item of b. It aliases b.
func NextItem(b []byte) (it Item, rest []byte, ok bool) {
	c := cursor{b: b}
	flags := c.u8()
	it = Item{Epoch: c.u32(), Digest: flags&itemDigest != 0, Key: c.short()}
	return it, c.b, !c.bad && flags&^itemFlags == 0 && len(it.Key) != 0 && len(it.Key) <= record.MaxInternalKey
}

// AppendAnswer appends an answer: status (1), and if that is OK, ballot (12) record (4+n). A record
// that would make the answers too long becomes Busy.
func AppendAnswer(dst []byte, a Answer) []byte {
	at := len(dst)
	return EndAnswer(append(BeginAnswer(dst), a.Record...), at, a.Status, a.Ballot)
}

const answerHead = 1 + 12 + 4

// BeginAnswer makes room for an answer whose record, if it has one, is appended next; EndAnswer
// completes it.
func BeginAnswer(dst []byte) []byte { return append(dst, make([]byte, answerHead)...) }

// EndAnswer completes the answer that begins at dst[at] and ends with its record.
func EndAnswer(dst []byte, at int, s Status, b record.Ballot) []byte {
	n := len(dst) - at - answerHead
	if s == OK && n > 0 && len(dst) > maxAnswers {
		s = Busy
	}
	dst[at] = byte(s)
	if s != OK {
		return dst[:at+1]
	}
	binary.LittleEndian.PutUint32(dst[at+1:], b.Epoch)
	binary.LittleEndian.PutUint64(dst[at+5:], uint64(b.Stamp))
	binary.LittleEndian.PutUint32(dst[at+13:], uint32(n))
	return dst
}

// NextAnswer reads the first answer of b. It aliases b.
func NextAnswer(b []byte) (a Answer, rest []byte, ok bool) {
	c := cursor{b: b}
	if a.Status = Status(c.u8()); a.Status == OK {
		a.Ballot = c.ballot()
		a.Record = c.long()
	}
	return a, c.b, !c.bad && a.Status != 0 && a.Status < numStatus
}
