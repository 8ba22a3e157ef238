package backup

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// upload builds the table of a partition, out of new frames for the leaves that have changed and the parent's for the others.
func (t *taking) upload(ctx context.Context, p int) (err error) {
	ctx, span := otel.Tracer("kai").Start(ctx, "snapshot.partition", trace.WithAttributes(attribute.Int("kai.partition", p)))
	defer func() {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}()
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

// heldAtMost is the largest buffer of one leaf that is kept for the next partition.
const heldAtMost = 4 * gathered / 1024

// gather reads the records of leaves, and adds frames of them.
func (t *taking) gather(ctx context.Context, b *built, leaves []int) error {
	if t.held == nil {
		t.held = make([][]byte, t.o.Leaves)
	}
	held, wanted := t.held, make([]bool, t.o.Leaves)
	for l := range held {
		held[l] = held[l][:0] // one that failed may have left some
	}
	for _, l := range leaves {
		wanted[l] = true
	}
	size := 0
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
		for _, l := range leaves {
			for rest := held[l]; len(rest) > 0; {
				n := cut(rest, frameSize-len(frame))
				if n == 0 && len(frame) > 0 {
					if err := end(); err != nil {
						return err
					}
					continue
				} else if n == 0 {
					n = cut(rest, maxRaw) // one record, larger than a frame should be
				}
				if frame == nil {
					frame = t.pack.buffer()
				}
				b.table.leaves[l].pieces = append(b.table.leaves[l].pieces, piece{len(b.table.frames), len(frame), n})
				frame, rest = append(frame, rest[:n]...), rest[n:]
			}
			if held[l] = held[l][:0]; cap(held[l]) > heldAtMost {
				held[l] = nil
			}
		}
		size = 0
		return end()
	}
	err := t.o.Source.Records(ctx, b.entry.Partition, leaves, func(r Record) error {
		if r.Leaf < 0 || r.Leaf >= len(wanted) || !wanted[r.Leaf] {
			return fmt.Errorf("a record of leaf %d, which was not asked for", r.Leaf)
		}
		l := &b.table.leaves[r.Leaf]
		l.sum += r.Sum
		l.records++
		before := len(held[r.Leaf])
		held[r.Leaf] = appendRecord(held[r.Leaf], r)
		size += len(held[r.Leaf]) - before
		return nil
	}, func() error {
		if size < gathered {
			return nil
		}
		return write()
	})
	if err != nil {
		return err
	}
	return write()
}

// cut is how many bytes of records are at most limit long, none of them parted. With maxRaw it is one record.
func cut(records []byte, limit int) (n int) {
	for rest := records; len(rest) > 0; {
		_, _, behind, ok := nextRecord(rest)
		if end := len(records) - len(behind); !ok || end > limit {
			break
		} else if n = end; limit == maxRaw {
			break
		}
		rest = behind
	}
	return n
}
