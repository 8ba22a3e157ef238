package backup

import (
	"context"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// partitionCost is what a partition is counted as by GiveWay, whatever it holds: its sums are read and compared with other nodes', and its tables are read, and
// one is written. That takes about as long as so many bytes do.
const partitionCost = 64 << 10

// upload builds the table of a partition, out of new frames for the leaves that have changed and the parent's for the others.
func (t *taking) upload(ctx context.Context, p int) (err error) {
	ctx, span := otel.Tracer("kai").Start(ctx, "snapshot.partition", trace.WithAttributes(attribute.Int("kai.partition", p)))
	defer func() {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()
	if t.o.GiveWay != nil {
		t.o.GiveWay(ctx, partitionCost)
	}
	sums, err := t.o.Source.Sums(ctx, p)
	if err != nil {
		return err
	}
	if len(sums) != t.o.Leaves {
		return fmt.Errorf("%d sums instead of %d", len(sums), t.o.Leaves)
	}
	b := &built{entry: Entry{Partition: p}, table: table{leaves: make([]leaf, t.o.Leaves)}}
	changed := t.inherit(ctx, b, sums)
	t.done.Leaves += len(sums)
	t.done.Unchanged += len(sums) - len(changed)
	if len(changed) > 0 {
		if err := t.gather(ctx, b, changed); err != nil {
			return err
		}
	}
	b.entry.Records, b.entry.Bytes = 0, 0
	for _, l := range b.table.leaves {
		b.entry.Records += l.records
		for _, piece := range l.pieces {
			b.entry.Bytes += int64(piece.length)
		}
	}
	span.SetAttributes(attribute.Int64("kai.records", b.entry.Records), attribute.Int64("kai.bytes", b.entry.Bytes), attribute.Int("kai.leaves.changed", len(changed)))
	t.ready = append(t.ready, b)
	return nil
}

// gathered bounds, but for what comes before a pause, the bytes of records that are held at once. They are written leaf by leaf, so that a leaf
// of a large partition is in few pieces.
const gathered = 16 * frameSize

// gathering is records that wait to be put into frames: as they came, and where each is. Kept in a buffer for each leaf, they would cost more:
// each would be written somewhere else, and its length be looked up again.
type gathering struct {
	raw     []byte
	records []place
	order   []place // records by leaf
	counts  []int   // by leaf
}

// place is a record in gathering.raw.
type place struct{ leaf, offset, length int32 }

func (g *gathering) add(r Record) {
	offset := len(g.raw)
	g.raw = appendRecord(g.raw, r)
	g.records = append(g.records, place{int32(r.Leaf), int32(offset), int32(len(g.raw) - offset)})
}

// byLeaf returns the records in the order of leaves, those of each in the order in which they came. It is good until the next add.
func (g *gathering) byLeaf(leaves int) []place {
	if len(g.counts) < leaves {
		g.counts = make([]int, leaves)
	}
	clear(g.counts)
	for _, r := range g.records {
		g.counts[r.leaf]++
	}
	at := 0
	for l, n := range g.counts {
		g.counts[l], at = at, at+n
	}
	g.order = slices.Grow(g.order[:0], len(g.records))[:len(g.records)]
	for _, r := range g.records {
		g.order[g.counts[r.leaf]] = r
		g.counts[r.leaf]++
	}
	return g.order
}

func (g *gathering) reset() {
	g.raw, g.records = g.raw[:0], g.records[:0]
	if cap(g.raw) > 2*gathered {
		g.raw = nil
	}
}

// gather reads the records of leaves, and adds frames of them.
func (t *taking) gather(ctx context.Context, b *built, leaves []int) error {
	held, wanted := &t.held, make([]bool, t.o.Leaves)
	held.reset() // a partition that failed may have left some
	for _, l := range leaves {
		wanted[l] = true
	}
	write := func() error {
		of := int32(-1) // the leaf of the piece that grows; -1: none
		for _, r := range held.byLeaf(t.o.Leaves) {
			if len(t.open.raw) > 0 && len(t.open.raw)+int(r.length) > frameSize {
				if err := t.endFrame(ctx); err != nil {
					return err
				}
			}
			if t.open.raw == nil {
				t.open.raw, t.open.ref = t.pack.buffer(), &Ref{}
			}
			if n := len(b.frames); n == 0 || b.frames[n-1] != t.open.ref {
				b.frames, of = append(b.frames, t.open.ref), -1
				b.table.frames = append(b.table.frames, frame{})
			}
			l, own := &b.table.leaves[r.leaf], &b.table.frames[len(b.table.frames)-1].own
			if r.leaf != of {
				l.pieces, of = append(l.pieces, piece{len(b.table.frames) - 1, len(t.open.raw), 0}), r.leaf
			}
			l.pieces[len(l.pieces)-1].length += int(r.length)
			*own += int64(r.length)
			t.open.raw = append(t.open.raw, held.raw[r.offset:r.offset+r.length]...)
		}
		held.reset()
		return nil
	}
	err := t.o.Source.Records(ctx, b.entry.Partition, leaves, func(r Record) error {
		if r.Leaf < 0 || r.Leaf >= len(wanted) || !wanted[r.Leaf] {
			return fmt.Errorf("a record of leaf %d, which was not asked for", r.Leaf)
		}
		l := &b.table.leaves[r.Leaf]
		l.sum += r.Sum
		l.records++
		held.add(r)
		if t.read += len(r.Key) + len(r.Value); t.read >= stretch && t.o.GiveWay != nil {
			t.o.GiveWay(ctx, t.read)
			t.read = 0
		}
		return nil
	}, func() error {
		if len(held.raw) < gathered {
			return nil
		}
		return write()
	})
	if err == nil {
		err = write()
	}
	if err == nil && len(t.open.raw) >= sharedSize {
		err = t.endFrame(ctx)
	}
	return err
}

// sharedSize is how large a frame must be for the next partition to begin another one. Alone, a few records compress badly, and most changes are few in each of
// many partitions; with more, whoever restores one partition would read too much of others.
const sharedSize = 32 << 10

// endFrame hands the open frame to the packer, if there is one.
func (t *taking) endFrame(ctx context.Context) error {
	raw, ref := t.open.raw, t.open.ref
	if t.open.raw, t.open.ref = nil, nil; raw == nil {
		return nil
	}
	return t.pack.add(ctx, raw, ref)
}

// settle enters where the new frames lie, whose packs have names by now.
func (b *built) settle(sizes map[PackID]int64) {
	old := len(b.table.frames) - len(b.frames)
	for i, ref := range b.frames {
		f := &b.table.frames[old+i]
		f.Ref = *ref
		b.entry.Uploaded += f.Length * f.own / f.Raw
	}
	known := len(b.entry.Packs)
	for _, id := range b.table.packs() {
		if !slices.ContainsFunc(b.entry.Packs[:known], func(p Pack) bool { return p.ID == id }) {
			b.entry.Packs = append(b.entry.Packs, Pack{id, sizes[id]})
		}
	}
}

// maxBases bounds how many tables make up one.
const maxBases = 4

// encode returns the table: what differs from the parent's. But where that is as large as the last of the tables that the parent's consists of, both become one, and so on: as in a binary counter,
// so that they are few, and each difference is written again a few times only.
func (b *built) encode() []byte {
	for bases := b.old; len(bases) > 0; bases = bases[:len(bases)-1] {
		differs := b.table.encode(bases.last())
		if int64(len(differs)) >= bases[len(bases)-1].ref.Raw || len(bases) > maxBases {
			continue
		}
		for _, base := range bases {
			b.entry.Bases = append(b.entry.Bases, base.ref)
			if !slices.Contains(b.entry.Packs, base.pack) {
				b.entry.Packs = append(b.entry.Packs, base.pack)
			}
		}
		return differs
	}
	return b.table.encode(nil)
}
