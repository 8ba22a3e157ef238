package backup

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// A partition of a million records on 1024 of them, in as many leaves as nodes compare.
const (
	sizedRecords = 977
	sizedLeaves  = 256
	sizedParts   = 64
)

// sized is a Source of records with values of 100 bytes, some of which are written again.
type sized struct {
	versions []byte // of each record; record i is of partition i % sizedParts
	value    func(i int, version byte) string
}

func (s *sized) each(p int, f func(Record) error) error {
	var stamp [24]byte
	for i := p; i < len(s.versions); i += sizedParts {
		key := fmt.Sprintf("user:%08d", i)
		hash := hashOf(key)
		for k := range 3 { // a real record has about as much that does not compress
			binary.LittleEndian.PutUint64(stamp[8*k:], (hash+uint64(s.versions[i]))*uint64(2*k+1)*0x9e3779b97f4a7c15)
		}
		value := string(stamp[:]) + s.value(i, s.versions[i])
		if err := f(Record{Key: []byte(key), Value: []byte(value), Leaf: int(hash % sizedLeaves), Sum: hashOf(key, value)}); err != nil {
			return err
		}
	}
	return nil
}

func (s *sized) Sums(_ context.Context, p int) ([]uint64, error) {
	sums := make([]uint64, sizedLeaves)
	return sums, s.each(p, func(r Record) error { sums[r.Leaf] += r.Sum; return nil })
}

func (s *sized) Records(_ context.Context, p int, leaves []int, yield func(Record) error, _ func() error) error {
	wanted := make([]bool, sizedLeaves)
	for _, l := range leaves {
		wanted[l] = true
	}
	return s.each(p, func(r Record) error {
		if !wanted[r.Leaf] {
			return nil
		}
		return yield(r)
	})
}

// compressed is how long all records are as zstd makes them, each partition for itself.
func (s *sized) compressed(t *testing.T) (n int64) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	for p := range sizedParts {
		var b []byte
		var records []string // in no order of their keys, as a node holds them
		if err := s.each(p, func(r Record) error {
			records = append(records, fmt.Sprintf("%03d", r.Leaf)+string(r.Key)+string(r.Value))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(records)
		for _, r := range records {
			b = append(b, r[3:]...)
		}
		n += int64(len(z.EncodeAll(b, nil)))
	}
	return n
}

// A first snapshot is hardly larger than the records, compressed; a second one, after 1 % of them were written again at random, a tenth of it at most, though each of them has its whole
// leaf written, and all partitions have some. One without changes is nearly nothing. All of what is uploaded counts.
func TestSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	text := make([]byte, 4096)
	for i := range text {
		text[i] = byte(' ' + r.IntN(95))
	}
	for name, value := range map[string]func(i int, version byte) string{
		"values that compress well": func(i int, version byte) string { // and so small that tables weigh much
			at := hashOf(fmt.Sprint(i, version)) % (4096 - 100)
			return string(text[at:][:100])
		},
		"values that do not": func(i int, version byte) string {
			r := rand.New(rand.NewPCG(uint64(i), uint64(version)))
			b := make([]byte, 0, 104)
			for len(b) < 100 {
				b = binary.LittleEndian.AppendUint64(b, r.Uint64())
			}
			return string(b[:100])
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, b := newFaultBucket(1)
			s := &sized{make([]byte, sizedRecords*sizedParts), value}
			o := options(b, "n1", s)
			o.Partitions, o.Leaves = sizedParts, sizedLeaves
			next := func(id string) Done {
				done, err := New(o).Take(t.Context(), id, allNow)
				if err != nil {
					t.Fatal(err)
				}
				verify(t, b, done.Manifest)
				return done
			}
			one := next("one")
			if most := s.compressed(t) * 11 / 10; one.Bytes > most {
				t.Errorf("the first has %d bytes, more than %d", one.Bytes, most)
			}
			for range len(s.versions) / 100 {
				s.versions[r.IntN(len(s.versions))]++
			}
			two := next("two")
			if two.Bytes > one.Bytes/10 {
				t.Errorf("%d bytes for 1 %% of changes, after %d", two.Bytes, one.Bytes)
			}
			three := next("three")
			if three.Bytes > one.Bytes/200 {
				t.Errorf("%d bytes for nothing, after %d", three.Bytes, one.Bytes)
			}
			t.Logf("%d bytes for %d compressed; %.1f %% for 1 %% of changes, %.2f for none", one.Bytes, s.compressed(t), 100*float64(two.Bytes)/float64(one.Bytes), 100*float64(three.Bytes)/float64(one.Bytes))
		})
	}
}
