package repair

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"kai/node/message"
	"kai/node/ring"
)

// ErrMoves: while a partition moves, its transfer is at work there.
var ErrMoves = errors.New("the partition moves")

// Gather has this node's replica take over what other members of p hold newer, so many that it then holds all that was
// acknowledged before the call, and returns the sums of its leaves after that: N−W others, since a write that none of those and
// this one holds was not acknowledged. It is for snapshots: beside passes, and not at their pace.
func (r *Repairer) Gather(ctx context.Context, p ring.Partition, quorum ring.Quorum) (sums []uint64, err error) {
	c := r.o.Configuration(p)
	switch {
	case len(c.Next) > 0:
		return nil, ErrMoves
	case !slices.Contains(c.Members, r.o.Self):
		return nil, errors.New("this node is no member")
	}
	if sums, err = r.sums(p, c, r.o.Self, nil); err != nil {
		return nil, err
	}
	q := quorum.For(len(c.Members))
	missing := q.N - q.W
	for _, id := range c.Members {
		if missing == 0 {
			break
		}
		if id == r.o.Self || !r.o.Peer(id).Healthy() {
			continue
		}
		if _, e := r.compare(ctx, p, c, sums, id); e != nil {
			err = e
			continue
		}
		missing--
	}
	if missing > 0 {
		return nil, fmt.Errorf("too few other members answer: %d more are needed (%w)", missing, errors.Join(err, ctx.Err()))
	}
	return r.sums(p, c, r.o.Self, nil)
}

// Level has this node's replica take over what any other member of p that answers holds newer, and tells how many leaves differed before that:
// 0 if all of them are alike.
func (r *Repairer) Level(ctx context.Context, p ring.Partition) (diverged int, err error) {
	c := r.o.Configuration(p)
	if len(c.Next) > 0 {
		return 0, ErrMoves
	}
	if !slices.Contains(c.Members, r.o.Self) {
		return 0, nil
	}
	own, err := r.sums(p, c, r.o.Self, nil)
	for _, id := range c.Members {
		if err != nil {
			break
		}
		if id == r.o.Self || !r.o.Peer(id).Healthy() {
			continue
		}
		var n int
		n, err = r.compare(ctx, p, c, own, id)
		diverged += n
	}
	return diverged, err
}

// Own calls yield with the records of some leaves that this node's replica holds, as they are encoded. What is written meanwhile
// may be among them or not. The slices are yield's during the call only, and it must block for moments only; pause may for longer: it is called every
// MiB, when nothing is held. Own stops at the first error of either, and returns it.
func (r *Repairer) Own(ctx context.Context, p ring.Partition, leaves []int, yield func(hash uint64, key, enc []byte) error, pause func() error) error {
	c := r.o.Configuration(p)
	var set message.LeafSet
	for _, l := range leaves {
		set.Add(l)
	}
	var after []byte
	for ctx.Err() == nil {
		last, err := r.o.Local.Page(p, c.Epoch, after, &set, ownPage, yield)
		if err != nil {
			return fmt.Errorf("own records: %w", err)
		}
		if last == nil {
			return nil
		}
		if err := pause(); err != nil {
			return err
		}
		after = last
	}
	return ctx.Err()
}

// ownPage is how many bytes of this node's own records are read at a time: each time the store sorts what is not in its table yet.
const ownPage = 1 << 20
