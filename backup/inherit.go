package backup

import (
	"cmp"
	"context"
	"slices"
)

// goneFrames tells which frames are not taken over, given how much of each is in use. Where that is less than half of what the partition had there, what it holds is written
// anew: else old frames stay for the sake of their last leaf. And where there are many, the smallest are: each snapshot adds one for its few
// changes, and who restores reads them all.
func goneFrames(frames []frame, used []int64) (gone []bool) {
	gone = make([]bool, len(frames))
	var kept []int
	var bytes int64
	for i, f := range frames {
		if gone[i] = used[i] < f.own/2 || used[i] == 0; !gone[i] {
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

// tablesAhead is for how many partitions tables are fetched at once: those of one node lie side by side.
const tablesAhead = 64

// old returns the tables of p in the parent; there is an entry.
func (t *taking) old(ctx context.Context, p int) (opened, error) {
	if _, ok := t.fetched[p]; !ok {
		var entries []Entry
		for next := p; next < t.o.Partitions && len(entries) < tablesAhead; next++ {
			if e, ok := t.parent[next]; ok && (next == p || t.due(next)) {
				entries = append(entries, e)
			}
		}
		t.fetched = map[int]stored{}
		for i, s := range fetchTables(ctx, t.o.Bucket, entries) {
			t.fetched[entries[i].Partition] = s
		}
	}
	s := t.fetched[p]
	delete(t.fetched, p)
	o, _, err := t.parent[p].decode(t.o.Bucket, s, t.o.Leaves)
	return o, cmp.Or(ctx.Err(), err)
}

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
	tables, err := t.old(ctx, b.entry.Partition)
	if err != nil {
		t.o.Logger.Warn("table of the earlier snapshot not readable: the partition is uploaded as a whole", "partition", b.entry.Partition, "error", err)
		return all()
	}
	old := tables.last()
	used := make([]int64, len(old.frames))
	same := true
	for i, l := range old.leaves {
		if l.sum != sums[i] {
			same = false
			continue
		}
		for _, piece := range l.pieces {
			used[piece.frame] += int64(piece.length)
		}
	}
	b.old = tables
	gone := goneFrames(old.frames, used)
	if same && !slices.Contains(gone, true) {
		b.table, b.entry, b.kept = *old, e, true
		b.entry.Uploaded = 0
		return nil
	}
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
	for _, id := range b.table.packs() {
		b.entry.Packs = append(b.entry.Packs, e.pack(id))
	}
	return changed
}

// pack is one of those that the tables or their frames lie in.
func (e Entry) pack(id PackID) Pack {
	i := slices.IndexFunc(e.Packs, func(p Pack) bool { return p.ID == id })
	if i < 0 {
		return Pack{ID: id} // by a manifest that names too little: verify tells of it
	}
	return e.Packs[i]
}
