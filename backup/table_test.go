package backup

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"testing"
)

// someTable has frames of 1000 bytes in some packs, and leaves of up to three pieces.
func someTable(r *rand.Rand, leaves int) *table {
	t := &table{leaves: make([]leaf, leaves)}
	for i := range 1 + r.IntN(4) {
		t.frames = append(t.frames, frame{Ref{PackID{byte(i / 2)}, int64(i) * 500, 400, 1000, Sum{byte(i)}}, 100 + int64(i)})
	}
	for i := range t.leaves {
		t.change(r, i)
	}
	return t
}

// change makes leaf i another one.
func (t *table) change(r *rand.Rand, i int) {
	t.leaves[i] = leaf{}
	for range r.IntN(4) {
		l := &t.leaves[i]
		l.sum, l.records = r.Uint64(), 1+r.Int64N(300)
		l.pieces = append(l.pieces, piece{r.IntN(len(t.frames)), r.IntN(500), 1 + r.IntN(500)})
	}
}

// sameTable tells whether two tables say the same, whatever the order of their frames.
func sameTable(a, b *table) bool {
	return slices.EqualFunc(a.leaves, b.leaves, func(l, o leaf) bool {
		return l.sum == o.sum && l.records == o.records && slices.EqualFunc(l.pieces, o.pieces, func(p, q piece) bool {
			return p.offset == q.offset && p.length == q.length && a.frames[p.frame] == b.frames[q.frame]
		})
	})
}

// A table comes back from what is written of it, whole or as what differs from another one, which stays as it was; and what differs in little is little.
func TestTable(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 4))
		one := someTable(r, 256)
		base, err := decodeTable(one.encode(nil), nil, 256)
		if err != nil || !sameTable(one, base) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		two := &table{frames: append(someTable(r, 0).frames, one.frames...), leaves: append([]leaf{}, one.leaves...)}
		shift := len(two.frames) - len(one.frames)
		for i := range two.frames[:shift] {
			two.frames[i].Pack[5] = 1
		}
		for i := range two.leaves {
			two.leaves[i].pieces = append([]piece{}, two.leaves[i].pieces...)
			for k := range two.leaves[i].pieces {
				two.leaves[i].pieces[k].frame += shift
			}
		}
		for range r.IntN(5) {
			two.change(r, r.IntN(256))
		}
		before := base.encode(nil)
		differs := two.encode(base)
		back, err := decodeTable(differs, base, 256)
		if err != nil || !sameTable(two, back) {
			t.Fatalf("seed %d: differences: %v", seed, err)
		}
		if len(differs) > 600 || !bytes.Equal(base.encode(nil), before) {
			t.Errorf("seed %d: %d bytes for a few leaves of %d", seed, len(differs), len(before))
		}
		if whole, err := decodeTable(two.encode(nil), nil, 256); err != nil || !sameTable(two, whole) {
			t.Fatalf("seed %d: whole: %v", seed, err)
		}
	}
}

// What is read may be anything: it is a table, which comes back from what is written of it, or ErrDamaged.
func FuzzTable(f *testing.F) {
	base := someTable(rand.New(rand.NewPCG(1, 1)), testLeaves)
	t := &table{frames: append([]frame{{Ref{Offset: 5, Length: 6, Raw: 7}, 6}}, base.frames...), leaves: make([]leaf, testLeaves)}
	t.leaves[2] = leaf{sum: 1, records: 1, pieces: []piece{{0, 1, 6}}}
	f.Add(t.encode(nil))
	f.Add(t.encode(base))
	// One that says something else of a place than base does: once a finding of this test.
	other := &table{frames: []frame{base.frames[0]}, leaves: t.leaves}
	other.frames[0].Raw++
	elsewhere := &table{frames: slices.Repeat([]frame{{Ref: Ref{Offset: 1}}}, len(base.frames)), leaves: base.leaves}
	f.Add(other.encode(elsewhere))
	f.Add([]byte{})
	f.Add(append(append([]byte{0, 0, testLeaves}, make([]byte, 10*testLeaves)...), 0)) // format 1
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, base := range []*table{nil, base} {
			tab, err := decodeTable(b, base, testLeaves)
			if err != nil {
				continue
			}
			again, err := decodeTable(tab.encode(base), base, testLeaves)
			if err != nil || !sameTable(tab, again) {
				t.Errorf("%v", err)
			}
		}
	})
}

// Snapshots of format 1 are read, and are parents of later ones.
func TestFormat1(t *testing.T) {
	old, err := OpenDir("testdata/format1", false)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	_, b := newFaultBucket(1)
	for _, key := range names(t, &Bucket{Bucket: old}, "") {
		content, err := old.ReadAll(t.Context(), key)
		if err == nil {
			err = b.WriteAll(t.Context(), key, content, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	h := newHeld(200, 20)
	h.set("key1", "changed")
	m, err := Open(context.Background(), b, "two")
	if err != nil || m.Format != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	verify(t, b, m)
	same(t, restored(t, b, m), h.clone())
	h.set("key2", "changed")
	done := take(t, b, "three", h)
	if done.Unchanged < done.Leaves-1 || done.Format != Format {
		t.Errorf("%d of %d leaves taken over", done.Unchanged, done.Leaves)
	}
	verify(t, b, done.Manifest)
	same(t, restored(t, b, done.Manifest), h.clone())
}
