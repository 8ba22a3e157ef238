package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"kai/backup"
	"kai/node/record"
	"kai/node/ring"
	"kai/node/store"
)

const (
	// buildBytes bounds what is read of a snapshot and waits to be sorted. What must be sorted together and is more is not built.
	buildBytes = 256 << 20
	// buildAhead is how many units are read before their turn: most of the time is the bucket's latency.
	buildAhead = 4
)

// unit is what must be sorted together: the old partitions and the new ones that share keys. Both numbers are powers of two, so it is one of the one and some of the other.
type unit struct {
	old   []int
	bytes int64
}

// row is a record where it belongs.
type row struct {
	p        ring.Partition
	key, enc []byte
}

// build reads the wanted partitions, in the order of units, and writes them as tables. left are those that have records which are not in the tables, by old number.
func (l *beginning) build(ctx context.Context, b *backup.Bucket, m *backup.Manifest, want func(old int) bool, first []ring.Configuration, build *store.Build) (left []bool, err error) {
	var units []unit
	left = make([]bool, m.Partitions)
	number := min(m.Partitions, len(first))
	for u := range number {
		from, end := overlap(u, number, m.Partitions)
		var x unit
		for p := from; p < end; p++ {
			if want(p) {
				x.old, x.bytes = append(x.old, p), x.bytes+m.Entries[p].Bytes
			}
		}
		switch {
		case len(x.old) == 0:
		case x.bytes > buildBytes:
			for _, p := range x.old {
				left[p] = true
			}
		default:
			units = append(units, x)
		}
	}
	room := semaphore.NewWeighted(buildBytes)
	group, ctx := errgroup.WithContext(ctx)
	streams := max(1, min(runtime.GOMAXPROCS(0), 4, len(units)))
	for s := range streams {
		own := units[s*len(units)/streams : (s+1)*len(units)/streams]
		read := make(chan chan []row, buildAhead)
		group.Go(func() error {
			defer close(read)
			for _, x := range own {
				if err := room.Acquire(ctx, x.bytes); err != nil {
					return err
				}
				rows := make(chan []row, 1)
				group.Go(func() error {
					got, err := l.read(ctx, b, m, x, first, build, left)
					rows <- got // also if it failed: who waits looks at ctx
					return err
				})
				select {
				case read <- rows:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
		group.Go(func() error {
			stream := build.Stream(s)
			i := 0
			for rows := range read {
				for _, r := range <-rows {
					if err := stream.Put(r.p, r.key, r.enc); err != nil {
						return err
					}
					l.records.Add(1)
					l.bytes.Add(int64(len(r.key) + len(r.enc)))
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
				room.Release(own[i].bytes)
				i++
			}
			return stream.Close()
		})
	}
	return left, group.Wait()
}

// read returns the records of a unit that go into the tables, in their order, and notes in left of which partitions there are others.
func (l *beginning) read(ctx context.Context, b *backup.Bucket, m *backup.Manifest, x unit, first []ring.Configuration, build *store.Build, left []bool) (rows []row, err error) {
	_, err = backup.Restore(ctx, b, m, func(old int) bool { return slices.Contains(x.old, old) }, false, func(_ context.Context, old int, items []backup.Item) error {
		for _, it := range items {
			p, _, mine, err := l.admit(first, it.Key, it.Value)
			switch {
			case err != nil:
				return err
			case !mine:
			// What is newer than the time that this node has reserved must wait for that: see replica.Learn.
			case build.Fits(len(it.Value)) && l.n.fence.Staged(record.PeekBallot(it.Value).Stamp.Ticks()):
				rows = append(rows, row{p, it.Key, it.Value})
			default:
				left[old] = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(cmp.Compare(a.p, b.p), bytes.Compare(a.key, b.key)) })
	for i := 1; i < len(rows); i++ {
		if rows[i].p == rows[i-1].p && bytes.Equal(rows[i].key, rows[i-1].key) {
			return nil, errors.New("the snapshot has two records of one key") // none that Kai took has
		}
	}
	return rows, nil
}
