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

	"github.com/klauspost/compress/zstd"
)

// Format is the version of everything in the bucket. A reader takes earlier ones as well, and refuses a later one.
const Format = 2

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
	Partition int `json:"partition"`
	Table     Ref `json:"table"`
	// Bases are tables of earlier snapshots, of which the first is whole; each later one, and Table, names only what differs from those before it.
	// Without them Table is whole.
	Bases    []Ref  `json:"bases,omitempty"`
	Records  int64  `json:"records"`
	Bytes    int64  `json:"bytes"`    // of keys and values, before compression
	Uploaded int64  `json:"uploaded"` // that the parent did not have: frames, or its share of them, and the table
	Packs    []Pack `json:"packs"`    // all that the tables and their frames lie in
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

// plainSize is up to what size documents can be read without tools; larger ones are compressed with zstd.
const plainSize = 4 << 10

// seal encodes v as a document: JSON, and a line with its checksum.
func seal(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	if b = fmt.Appendf(b, "\nsha256:%x\n", sum); len(b) > plainSize {
		b = zip.EncodeAll(b, nil)
	}
	return b, nil
}

// zip is for documents.
var zip, _ = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(frameSize), zstd.WithEncoderCRC(false))

// zipMagic begins what zstd has compressed.
var zipMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// unseal decodes a document.
func unseal(b []byte, v any) error {
	if bytes.HasPrefix(b, zipMagic) {
		var err error
		if b, err = unzip.DecodeAll(b, nil); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	body, line, ok := bytes.Cut(b, []byte("\n"))
	sum := sha256.Sum256(body)
	if !ok || !bytes.Equal(line, fmt.Appendf(nil, "sha256:%x\n", sum)) {
		return fmt.Errorf("%w: its checksum does not match", ErrDamaged)
	}
	var header struct{ Format int }
	if err := json.Unmarshal(body, &header); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if header.Format < 1 || header.Format > Format {
		return fmt.Errorf("backup: format %d, this version reads 1 to %d: use the version that wrote it, or a later one", header.Format, Format)
	}
	return json.Unmarshal(body, v)
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
