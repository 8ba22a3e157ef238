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

// partitionCost is what a partition is counted as by GiveWay, whatever it holds: its sums are read and compared with other nodes', and its table is read and
// written anew. That takes about as long as so many bytes do.
const partitionCost = 128 << 10

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
		var frame []byte
		end := func() error {
			if len(frame) == 0 {
				return nil
			}
			ref, err := t.pack.add(ctx, frame)
			if err != nil {
				return err
			}
			b.frames = append(b.frames, ref)
			b.table.frames = append(b.table.frames, Ref{})
			frame = nil
			return nil
		}
		of := int32(-1) // the leaf of the piece that grows; -1: none
		for _, r := range held.byLeaf(t.o.Leaves) {
			if len(frame) > 0 && len(frame)+int(r.length) > frameSize {
				if err := end(); err != nil {
					return err
				}
				of = -1
			}
			if frame == nil {
				frame = t.pack.buffer()
			}
			l := &b.table.leaves[r.leaf]
			if r.leaf != of {
				l.pieces, of = append(l.pieces, piece{len(b.table.frames), len(frame), 0}), r.leaf
			}
			l.pieces[len(l.pieces)-1].length += int(r.length)
			frame = append(frame, held.raw[r.offset:r.offset+r.length]...)
		}
		held.reset()
		return end()
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
	if err != nil {
		return err
	}
	return write()
}
