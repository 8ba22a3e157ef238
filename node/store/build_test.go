package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kai/node/ring"
)

// built builds a table of count records, over two streams, and finishes it unless told not to.
func built(t *testing.T, s *Store, count int, finish bool) *Build {
	t.Helper()
	b, err := s.Build()
	if err != nil || b == nil {
		t.Fatalf("build: %v, %v", b, err)
	}
	type row struct {
		p   ring.Partition
		key []byte
		n   uint64
	}
	var rows []row
	for i := range count {
		key := fmt.Appendf(nil, "key-%d", i)
		p, _ := place(key)
		rows = append(rows, row{p, key, uint64(i + 1)})
	}
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(cmp.Compare(a.p, b.p), bytes.Compare(a.key, b.key)) })
	half, _ := slices.BinarySearchFunc(rows, testPartitions/2, func(r row, p ring.Partition) int { return cmp.Compare(r.p, p) })
	for i, part := range [][]row{rows[:half], rows[half:]} {
		stream := b.Stream(i)
		for _, r := range part {
			if err := stream.Put(r.p, r.key, counted(r.key, r.n, 100)); err != nil {
				t.Fatal(err)
			}
		}
		if err := stream.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if finish {
		if err := b.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func meta(t *testing.T, s *Store, name, value string) {
	t.Helper()
	w := make(waiter, 1)
	s.PutMeta(name, []byte(value), w)
	if err := <-w; err != nil {
		t.Fatal(err)
	}
}

// TestBuild: what was built takes the place of the table, with all named values, and stays over restarts; writes go on.
func TestBuild(t *testing.T) {
	dir := t.TempDir()
	const count = 3000
	holds := func(s *Store, first uint64) {
		t.Helper()
		for i := range count {
			want := uint64(i + 1)
			if i == 0 {
				want = first
			}
			if n := got(t, s, fmt.Sprintf("key-%d", i)); n != want {
				t.Fatalf("key-%d: %d instead of %d", i, n, want)
			}
		}
		if v, err := s.Meta("name"); err != nil || string(v) != "value" {
			t.Errorf("named value: %q, %v", v, err)
		}
	}
	s, stop := running(t, small(Options{Dir: dir}))
	meta(t, s, "name", "value")
	stop() // brings it into the table
	s, stop = running(t, small(Options{Dir: dir}))
	built(t, s, count, true)
	holds(s, 1)
	put(t, s, "key-0", 9000, 100)
	holds(s, 9000)
	if b, err := s.Build(); b != nil || err != nil {
		t.Errorf("a table with records may be built anew: %v, %v", b, err)
	}
	stop()
	s, stop = running(t, small(Options{Dir: dir}))
	holds(s, 9000)
	if !s.CleanStop() {
		t.Error("the clean stop was forgotten")
	}
	stop()
	if left, _ := filepath.Glob(filepath.Join(dir, "table*")); len(left) != 1 || filepath.Base(left[0]) != "table.1" {
		t.Errorf("there are %q", left)
	}
}

// TestBuildOfAStagedRecord: a record that is only in the log counts, too.
func TestBuildOfAStagedRecord(t *testing.T) {
	s, _ := running(t, small(Options{Dir: t.TempDir()}))
	put(t, s, "key", 1, 10)
	if b, err := s.Build(); b != nil || err != nil {
		t.Errorf("a store with a record may be built anew: %v, %v", b, err)
	}
}

func TestBuildWantsOrder(t *testing.T) {
	s, _ := running(t, small(Options{Dir: t.TempDir()}))
	b, err := s.Build()
	if err != nil || b == nil {
		t.Fatalf("build: %v, %v", b, err)
	}
	defer b.Discard()
	stream := b.Stream(0)
	for i, c := range []struct {
		p   ring.Partition
		key string
		err error
	}{{1, "b", nil}, {1, "a", errOrder}, {1, "b", errOrder}, {0, "c", errOrder}, {1, "c", nil}} {
		if err := stream.Put(c.p, []byte(c.key), counted([]byte(c.key), 1, 10)); !errors.Is(err, c.err) {
			t.Errorf("record %d: %v", i, err)
		}
	}
}

// TestBuildIsKilled opens what the disk held before the build was finished, between, and after: the table as it was, or as it was built.
func TestBuildIsKilled(t *testing.T) {
	dir := t.TempDir()
	s, stop := running(t, small(Options{Dir: dir}))
	meta(t, s, "name", "value")
	stop()
	s, _ = running(t, small(Options{Dir: dir}))
	b := built(t, s, 500, false)
	copied := func(of ...string) string {
		to := t.TempDir()
		for _, from := range of {
			if err := os.CopyFS(filepath.Join(to, filepath.Base(from)), os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
		}
		return to
	}
	before := copied(filepath.Join(dir, "table"), filepath.Join(dir, "table.1"), filepath.Join(dir, "log"))
	if err := b.Finish(); err != nil {
		t.Fatal(err)
	}
	between := copied(filepath.Join(before, "table"), filepath.Join(dir, "table.1"), filepath.Join(dir, "log"))
	after := copied(filepath.Join(dir, "table.1"), filepath.Join(dir, "log"))
	for name, c := range map[string]struct {
		dir   string
		first uint64
	}{"before": {before, 0}, "between": {between, 1}, "after": {after, 1}} {
		t.Run(name, func(t *testing.T) {
			s, stop := running(t, small(Options{Dir: c.dir}))
			if n := got(t, s, "key-0"); n != c.first {
				t.Errorf("the first record is %d instead of %d", n, c.first)
			}
			if v, err := s.Meta("name"); err != nil || string(v) != "value" {
				t.Errorf("named value: %q, %v", v, err)
			}
			stop()
			if left, _ := filepath.Glob(filepath.Join(c.dir, "table*")); len(left) != 1 {
				t.Errorf("there are %q", left)
			}
		})
	}
}
