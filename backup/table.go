package backup

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// table says where the records of one partition are.
type table struct {
	frames []frame
	leaves []leaf
}

// frame is one in which some of a partition's records lie, beside those of others perhaps.
type frame struct {
	Ref
	own int64 // of the partition, of Raw, when it was written
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
func (t *table) packs() []PackID { return packsOf(t.frames) }

func packsOf(frames []frame) []PackID {
	var ids []PackID
	seen := map[PackID]bool{}
	for _, f := range frames {
		if !seen[f.Pack] {
			seen[f.Pack] = true
			ids = append(ids, f.Pack)
		}
	}
	return ids
}

// tableMagic begins a table. Those of format 1 had none, and never began so: zero packs hold zero frames.
var tableMagic = []byte{0, 2}

// encode writes what differs from base, or, where that is nil, from a table without records. Behind the lists of packs and of frames that base does not have come
// columns of the leaves that differ, and of their pieces: numbers of one kind side by side are what compresses.
func (t *table) encode(base *table) []byte {
	if base == nil {
		base = &table{leaves: make([]leaf, len(t.leaves))}
	}
	// By all that is said of a frame, not by its place: a damaged table may say something else of a place than base does.
	numbers := make(map[frame]int, len(base.frames)+len(t.frames))
	for i, f := range base.frames {
		numbers[f] = i
	}
	var frames []frame
	for _, f := range t.frames {
		if _, known := numbers[f]; !known {
			numbers[f] = len(base.frames) + len(frames)
			frames = append(frames, f)
		}
	}
	var differ []int
	for i := range t.leaves {
		if !t.sameLeaf(base, i) {
			differ = append(differ, i)
		}
	}
	b := slices.Clone(tableMagic)
	number := func(v int) { b = binary.AppendUvarint(b, uint64(v)) }
	each := func(f func(l leaf)) {
		for _, i := range differ {
			f(t.leaves[i])
		}
	}
	ids := packsOf(frames)
	number(len(ids))
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	number(len(frames))
	for _, f := range frames {
		for _, v := range []int64{int64(slices.Index(ids, f.Pack)), f.Offset, f.Length, f.Raw, f.own} {
			number(int(v))
		}
		b = append(b, f.Sum[:]...)
	}
	number(len(differ))
	next := 0
	for _, i := range differ {
		number(i - next)
		next = i + 1
	}
	each(func(l leaf) { b = binary.LittleEndian.AppendUint64(b, l.sum) })
	each(func(l leaf) { number(int(l.records)) })
	each(func(l leaf) { number(len(l.pieces)) })
	eachPiece := func(f func(p piece)) {
		each(func(l leaf) {
			for _, p := range l.pieces {
				p.frame = numbers[t.frames[p.frame]]
				f(p)
			}
		})
	}
	eachPiece(func(p piece) { number(p.frame) })
	eachPiece(func(p piece) { number(p.length) })
	var last piece
	eachPiece(func(p piece) {
		b = binary.AppendVarint(b, int64(p.offset-last.behind(p.frame)))
		last = p
	})
	return b
}

// behind is where the next piece of a frame most likely begins.
func (p piece) behind(frame int) int {
	if p.frame != frame {
		return 0
	}
	return p.offset + p.length
}

// sameLeaf tells whether leaf i is the same in both.
func (t *table) sameLeaf(o *table, i int) bool {
	a, b := t.leaves[i], o.leaves[i]
	return a.sum == b.sum && a.records == b.records && slices.EqualFunc(a.pieces, b.pieces, func(p, q piece) bool {
		return p.offset == q.offset && p.length == q.length && t.frames[p.frame] == o.frames[q.frame]
	})
}

// decodeTable reads what encode wrote, and leaves base as it is.
func decodeTable(b []byte, base *table, leaves int) (*table, error) {
	if !bytes.HasPrefix(b, tableMagic) {
		return decodeTable1(b, leaves)
	}
	if base == nil {
		base = &table{leaves: make([]leaf, leaves)}
	}
	c := &cursor{b: b[len(tableMagic):]}
	t := &table{frames: append(slices.Clone(base.frames), c.frames(true)...), leaves: slices.Clone(base.leaves)}
	differ := make([]*leaf, c.count(11))
	next := 0
	for k := range differ {
		i := next + int(c.uvarint(int64(leaves)))
		if c.bad || i >= len(t.leaves) {
			return nil, fmt.Errorf("%w table", ErrDamaged)
		}
		differ[k], next = &t.leaves[i], i+1
	}
	for _, l := range differ {
		l.sum = binary.LittleEndian.Uint64(c.bytes(8))
	}
	for _, l := range differ {
		l.records = c.uvarint(maxRecords)
	}
	pieces := 0
	for _, l := range differ {
		n := c.count(3)
		if pieces += n; pieces > len(c.b) { // each takes some of what is left
			return nil, fmt.Errorf("%w table", ErrDamaged)
		}
		l.pieces = make([]piece, n)
	}
	eachPiece := func(f func(p *piece)) {
		for _, l := range differ {
			for k := range l.pieces {
				f(&l.pieces[k])
			}
		}
	}
	eachPiece(func(p *piece) { p.frame = c.index(len(t.frames)) })
	eachPiece(func(p *piece) { p.length = int(c.uvarint(maxRaw)) })
	var last piece
	eachPiece(func(p *piece) {
		p.offset = last.behind(p.frame) + int(c.varint())
		last = *p
	})
	return t.check(c, leaves)
}

// decodeTable1 reads a table of format 1.
func decodeTable1(b []byte, leaves int) (*table, error) {
	c := &cursor{b: b}
	t := &table{frames: c.frames(false)}
	t.leaves = make([]leaf, c.count(10))
	for i := range t.leaves {
		l := &t.leaves[i]
		l.sum, l.records = binary.LittleEndian.Uint64(c.bytes(8)), c.uvarint(maxRecords)
		l.pieces = make([]piece, c.count(3))
		for k := range l.pieces {
			l.pieces[k] = piece{c.index(len(t.frames)), int(c.uvarint(maxRaw)), int(c.uvarint(maxRaw))}
		}
	}
	return t.check(c, leaves)
}

// check ends a decoding: all was there and nothing else, and pieces lie in their frames. Frames that no leaf needs any more are left out.
func (t *table) check(c *cursor, leaves int) (*table, error) {
	if c.bad || len(c.b) > 0 || len(t.leaves) != leaves {
		return nil, fmt.Errorf("%w table", ErrDamaged)
	}
	numbers := make([]int, len(t.frames)) // new ones, from 1
	var used []frame
	for i := range t.leaves {
		l := &t.leaves[i]
		l.pieces = slices.Clone(l.pieces) // they may be base's
		for k := range l.pieces {
			p := &l.pieces[k]
			f := t.frames[p.frame]
			if p.offset < 0 || int64(p.offset)+int64(p.length) > f.Raw {
				return nil, fmt.Errorf("%w table", ErrDamaged)
			}
			if numbers[p.frame] == 0 {
				used = append(used, f)
				numbers[p.frame] = len(used)
			}
			p.frame = numbers[p.frame] - 1
		}
	}
	t.frames = used
	return t, nil
}

// maxRecords of a leaf.
const maxRecords = 1 << 40

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

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 || v > maxRaw || v < -maxRaw || c.bad {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return v
}

// frames reads the lists of packs and of frames; own: with what part of each is the partition's own, else all is.
func (c *cursor) frames(own bool) []frame {
	ids := make([]PackID, c.count(len(PackID{})))
	for i := range ids {
		ids[i] = PackID(c.bytes(len(PackID{})))
	}
	frames := make([]frame, c.count(20))
	for i := range frames {
		f := &frames[i]
		if pack := c.index(len(ids)); !c.bad {
			f.Pack = ids[pack]
		}
		f.Offset, f.Length, f.Raw = c.uvarint(maxPack), c.uvarint(maxPack), c.uvarint(maxRaw)
		if f.own = f.Raw; own {
			f.own = c.uvarint(f.Raw)
		}
		f.Sum = Sum(c.bytes(len(Sum{})))
	}
	return frames
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
