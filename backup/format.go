// Package backup keeps snapshots of a cluster's partitions in a bucket, and brings them back. It knows a Source, a
// Sink, and any bucket of gocloud.dev/blob; nothing of nodes. DESIGN.md has the layout and why.
package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Format is the version of everything in the bucket. A reader refuses a later one.
const Format = 1

// ErrDamaged: what the bucket holds is not what was written.
var ErrDamaged = errors.New("damaged")

// PackID names a pack: the SHA-256 of its content.
type PackID [sha256.Size]byte

// String is the id in hexadecimal, as in the pack's name.
func (id PackID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id PackID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *PackID) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(id) {
		return fmt.Errorf("backup: %q is not a pack's id", text)
	}
	_, err := hex.Decode(id[:], text)
	return err
}

// Ref is where a frame lies: a run of bytes of a pack, compressed with zstd.
type Ref struct {
	Pack   PackID `json:"pack"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Raw    int64  `json:"raw"` // length of what it decompresses to
	Sum    Sum    `json:"sum"` // of the compressed bytes
}

// Sum is the first half of a SHA-256.
type Sum [16]byte

func sumOf(b []byte) Sum {
	full := sha256.Sum256(b)
	return Sum(full[:16])
}

// MarshalText implements encoding.TextMarshaler.
func (s Sum) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(s[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Sum) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(s) {
		return fmt.Errorf("backup: %q is not a sum", text)
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// Begin is the content of snapshots/<id>/BEGIN: what all who take part in a snapshot go by.
type Begin struct {
	Format     int    `json:"format"`
	Cluster    string `json:"cluster"`
	Snapshot   string `json:"snapshot"`
	Partitions int    `json:"partitions"`
	Leaves     int    `json:"leaves"`
	// Cut: what was acknowledged before is in the snapshot; of what came later, some.
	Cut time.Time `json:"cut"`
	// Parent is the complete snapshot that unchanged leaves are taken from; empty: none.
	Parent string `json:"parent,omitempty"`
	// Key names the key that frames are encrypted with; empty: they are not.
	Key string `json:"key,omitempty"`
	// Expires is when prune takes the snapshot for given up, if it is not complete.
	Expires time.Time `json:"expires"`
}

// Part is the content of snapshots/<id>/parts/<node>-<n>: partitions that one node has uploaded.
type Part struct {
	Format   int     `json:"format"`
	Snapshot string  `json:"snapshot"`
	Node     string  `json:"node"`
	Entries  []Entry `json:"entries"`
}

// Entry is one partition of a snapshot.
type Entry struct {
	Partition int    `json:"partition"`
	Table     Ref    `json:"table"`
	Records   int64  `json:"records"`
	Bytes     int64  `json:"bytes"`    // of keys and values, before compression
	Uploaded  int64  `json:"uploaded"` // of frames that the parent did not have
	Packs     []Pack `json:"packs"`    // all that the table's frames lie in
}

// Pack is a pack's name and size in bytes.
type Pack struct {
	ID   PackID `json:"id"`
	Size int64  `json:"size"`
}

// Manifest is the content of snapshots/<id>/MANIFEST: a snapshot that is complete, without regard to any other.
type Manifest struct {
	Begin
	Completed time.Time `json:"completed"`
	Entries   []Entry   `json:"entries"` // by partition, one each
}

// seal encodes v as a document: JSON, and a line with its checksum.
func seal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return fmt.Appendf(b, "\nsha256:%x\n", sum), nil
}

// unseal decodes a document.
func unseal(b []byte, v any) error {
	body, line, ok := bytes.Cut(b, []byte("\n"))
	sum := sha256.Sum256(body)
	if !ok || !bytes.Equal(line, fmt.Appendf(nil, "sha256:%x\n", sum)) {
		return fmt.Errorf("%w: its checksum does not match", ErrDamaged)
	}
	var header struct{ Format int }
	if err := json.Unmarshal(body, &header); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if header.Format != Format {
		return fmt.Errorf("backup: format %d, this version reads %d: use the version that wrote it, or a later one", header.Format, Format)
	}
	return json.Unmarshal(body, v)
}

// table says where the records of one partition are.
type table struct {
	frames []Ref
	leaves []leaf
}

// leaf is one of the parts that a partition's records are compared in.
type leaf struct {
	sum     uint64 // as Source has it
	records int64
	pieces  []piece
}

// piece is a run of a frame's raw bytes: records of one leaf, one behind the other.
type piece struct{ frame, offset, length int }

// packs lists what the frames lie in.
func (t *table) packs() []PackID {
	var ids []PackID
	seen := map[PackID]bool{}
	for _, f := range t.frames {
		if !seen[f.Pack] {
			seen[f.Pack] = true
			ids = append(ids, f.Pack)
		}
	}
	return ids
}

func (t *table) encode() []byte {
	ids := t.packs()
	index := map[PackID]int{}
	b := binary.AppendUvarint(nil, uint64(len(ids)))
	for i, id := range ids {
		index[id] = i
		b = append(b, id[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(t.frames)))
	for _, f := range t.frames {
		for _, v := range []int64{int64(index[f.Pack]), f.Offset, f.Length, f.Raw} {
			b = binary.AppendUvarint(b, uint64(v))
		}
		b = append(b, f.Sum[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(t.leaves)))
	for _, l := range t.leaves {
		b = binary.LittleEndian.AppendUint64(b, l.sum)
		b = binary.AppendUvarint(b, uint64(l.records))
		b = binary.AppendUvarint(b, uint64(len(l.pieces)))
		for _, p := range l.pieces {
			for _, v := range []int{p.frame, p.offset, p.length} {
				b = binary.AppendUvarint(b, uint64(v))
			}
		}
	}
	return b
}

// cursor reads what encode wrote; after the first thing that cannot be, bad is set and all is zero.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) uvarint(limit int64) int64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 || v > uint64(limit) || c.bad {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return int64(v)
}

// index is the number of one of n things.
func (c *cursor) index(n int) int {
	if n == 0 {
		c.bad = true
		return 0
	}
	return int(c.uvarint(int64(n - 1)))
}

// count is a number of things of at least size bytes each.
func (c *cursor) count(size int) int { return int(c.uvarint(int64(len(c.b) / size))) }

func (c *cursor) bytes(n int) []byte {
	if n > len(c.b) || c.bad {
		c.bad = true
		return make([]byte, n) // n is a few, or within what was left
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func decodeTable(b []byte, leaves int) (*table, error) {
	c, t := &cursor{b: b}, &table{}
	ids := make([]PackID, c.count(len(PackID{})))
	for i := range ids {
		ids[i] = PackID(c.bytes(len(PackID{})))
	}
	t.frames = make([]Ref, c.count(20))
	for i := range t.frames {
		f := &t.frames[i]
		if pack := c.index(len(ids)); !c.bad {
			f.Pack = ids[pack]
		}
		f.Offset, f.Length, f.Raw = c.uvarint(maxPack), c.uvarint(maxPack), c.uvarint(maxRaw)
		f.Sum = Sum(c.bytes(len(Sum{})))
	}
	t.leaves = make([]leaf, c.count(10))
	for i := range t.leaves {
		l := &t.leaves[i]
		l.sum, l.records = binary.LittleEndian.Uint64(c.bytes(8)), c.uvarint(1<<40)
		l.pieces = make([]piece, c.count(3))
		for k := range l.pieces {
			p := &l.pieces[k]
			p.frame, p.offset, p.length = c.index(len(t.frames)), int(c.uvarint(maxRaw)), int(c.uvarint(maxRaw))
			if c.bad || int64(p.offset+p.length) > t.frames[p.frame].Raw {
				return nil, fmt.Errorf("%w table", ErrDamaged)
			}
		}
	}
	if c.bad || len(c.b) > 0 || len(t.leaves) != leaves {
		return nil, fmt.Errorf("%w table", ErrDamaged)
	}
	return t, nil
}

// Record is what a snapshot holds of one record. The slices are the caller's again when the call they were
// handed to returns.
type Record struct {
	Key, Value []byte // Value as its owner encodes it, version, expiry and deletion included
	Leaf       int
	Sum        uint64 // its share of its leaf's sum; sums are added
}

func appendRecord(b []byte, r Record) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.Key)))
	b = append(b, r.Key...)
	b = binary.AppendUvarint(b, uint64(len(r.Value)))
	return append(b, r.Value...)
}

// nextRecord reads what appendRecord wrote.
func nextRecord(b []byte) (key, value, rest []byte, ok bool) {
	c := &cursor{b: b}
	key = c.bytes(c.count(1))
	value = c.bytes(c.count(1))
	return key, value, c.b, !c.bad
}
