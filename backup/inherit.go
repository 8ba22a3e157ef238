package backup

import (
	"cmp"
	"context"
	"slices"
)

// goneFrames tells which frames are not taken over, given how much of each is in use. Where that is less than half, what it holds is written
// anew: else old frames stay for the sake of their last leaf. And where there are many, the smallest are: each snapshot adds one for its few
// changes, and who restores reads them all.
func goneFrames(frames []Ref, used []int64) (gone []bool) {
	gone = make([]bool, len(frames))
	var kept []int
	var bytes int64
	for i, f := range frames {
		if gone[i] = used[i] < f.Raw/2 || used[i] == 0; !gone[i] {
			kept = append(kept, i)
			bytes += used[i]
		}
	}
	most := fewFrames + 2*int(bytes/frameSize)
	if len(kept) <= most {
		return gone
	}
	slices.SortFunc(kept, func(i, j int) int { return cmp.Compare(used[i], used[j]) })
	for _, i := range kept[:len(kept)-most/2] {
		gone[i] = true
	}
	return gone
}

// fewFrames is how many a small partition may have.
const fewFrames = 16

// inherit takes over from the parent the leaves that have not changed and lie in frames that stay, and returns the others.
func (t *taking) inherit(ctx context.Context, b *built, sums []uint64) (changed []int) {
	all := func() []int {
		for i, sum := range sums {
			if sum != 0 {
				changed = append(changed, i)
			}
		}
		return changed
	}
	e, ok := t.parent[b.entry.Partition]
	if !ok {
		return all()
	}
	old, err := e.open(ctx, t.o.Bucket, t.o.Leaves)
	if err != nil {
		t.o.Logger.Warn("table of the earlier snapshot not readable: the partition is uploaded as a whole", "partition", b.entry.Partition, "error", err)
		return all()
	}
	used := make([]int64, len(old.frames))
	for i, l := range old.leaves {
		if l.sum == sums[i] {
			for _, piece := range l.pieces {
				used[piece.frame] += int64(piece.length)
			}
		}
	}
	gone := goneFrames(old.frames, used)
	moved := map[int]int{} // frames, by their number in old
	for i, l := range old.leaves {
		thin := slices.ContainsFunc(l.pieces, func(p piece) bool { return gone[p.frame] })
		switch {
		case sums[i] == 0:
			continue // empty
		case l.sum != sums[i] || thin:
			changed = append(changed, i)
			continue
		}
		l.pieces = slices.Clone(l.pieces)
		for k := range l.pieces {
			number, ok := moved[l.pieces[k].frame]
			if !ok {
				number = len(b.table.frames)
				moved[l.pieces[k].frame] = number
				b.table.frames = append(b.table.frames, old.frames[l.pieces[k].frame])
			}
			l.pieces[k].frame = number
		}
		b.table.leaves[i] = l
	}
	sizes := map[PackID]int64{}
	for _, pack := range e.Packs {
		sizes[pack.ID] = pack.Size
	}
	for _, id := range b.table.packs() {
		b.entry.Packs = append(b.entry.Packs, Pack{id, sizes[id]})
	}
	return changed
}
