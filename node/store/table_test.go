package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// tables are all implementations of Table; reopen closes and opens again.
func tables(t *testing.T, test func(t *testing.T, table Table, reopen func() Table)) {
	t.Run("mem", func(t *testing.T) {
		table := NewMemTable()
		test(t, table, func() Table {
			table = table.Crash(nil)
			return table
		})
	})
	t.Run("badger", func(t *testing.T) {
		opts := small(Options{Dir: t.TempDir()})
		if err := opts.fill(); err != nil {
			t.Fatal(err)
		}
		var last Table
		open := func() Table {
			if last != nil {
				if err := last.Close(); err != nil {
					t.Fatal(err)
				}
			}
			table, err := OpenBadger(opts)
			if err != nil {
				t.Fatal(err)
			}
			last = table
			return table
		}
		t.Cleanup(func() { last.Close() })
		test(t, open(), open)
	})
}

func TestTablesKeepTheLastValueOfEachKey(t *testing.T) {
	tables(t, func(t *testing.T, table Table, reopen func() Table) {
		rng := rand.New(rand.NewPCG(1, 2))
		want := map[string]string{}
		for range 6 {
			var rows []Row
			for range 60 {
				key := fmt.Sprintf("%c%d", "mrs"[rng.IntN(3)], rng.IntN(40))
				if rng.IntN(4) == 0 {
					rows = append(rows, Row{Key: []byte(key), Delete: true})
					delete(want, key)
					continue
				}
				// Up to four pieces of Badger's, and sizes at their borders.
				value := bytes.Repeat([]byte{byte(rng.IntN(256))}, []int{0, 1, 100, 52428, 52429, 104857, 104858, 104859, 200000}[rng.IntN(9)])
				rows = append(rows, Row{Key: []byte(key), Value: value})
				want[key] = string(value)
			}
			if err := table.Apply(rows); err != nil {
				t.Fatal(err)
			}
			table = reopen()
			checkTable(t, table, want)
		}
	})
}

func checkTable(t *testing.T, table Table, want map[string]string) {
	t.Helper()
	for i := range 40 {
		for _, space := range "mrs" {
			key := fmt.Sprintf("%c%d", space, i)
			if _, found, err := table.Get(nil, []byte(key)); err != nil || !found && want[key] != "" {
				t.Fatalf("%s: %v, %v", key, found, err)
			} else if _, has := want[key]; found && !has {
				t.Fatalf("%s is there, but deleted", key)
			}
		}
	}
	for key, value := range want {
		have, found, err := table.Get([]byte("x"), []byte(key))
		if err != nil || !found || string(have) != "x"+value {
			t.Fatalf("%s: %d bytes, %v, %v; want %d", key, len(have)-1, found, err, len(value))
		}
	}
	if _, found, err := table.Get(nil, []byte("r-none")); found || err != nil {
		t.Fatalf("absent key: %v, %v", found, err)
	}
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(want)), func(k string) bool { return k[0] != 'r' })
	err := table.Scan([]byte("r"), []byte("s"), func(key, value []byte) error {
		if len(keys) == 0 || string(key) != keys[0] || string(value) != want[keys[0]] {
			t.Fatalf("scan came to %q, want %q", key, keys)
		}
		keys = keys[1:]
		return nil
	})
	if err != nil || len(keys) > 0 {
		t.Fatalf("scan: %v, left out %v", err, keys)
	}
	stop := errors.New("stop")
	if err := table.Scan([]byte("a"), []byte("z"), func(_, _ []byte) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("scan did not stop: %v", err)
	}
}

// A value that has shrunk leaves no pieces behind.
func TestBadgerRemovesOldPieces(t *testing.T) {
	opts := small(Options{Dir: t.TempDir()})
	if err := opts.fill(); err != nil {
		t.Fatal(err)
	}
	table, err := OpenBadger(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	for _, c := range []struct{ size, pieces int }{{300000, 6}, {150000, 3}, {10, 0}, {60000, 2}, {-1, 0}, {400000, 8}, {-1, 0}, {-1, 0}} {
		row := Row{Key: []byte("rk"), Delete: c.size < 0}
		if !row.Delete {
			row.Value = make([]byte, c.size)
		}
		if err := table.Apply([]Row{row}); err != nil {
			t.Fatal(err)
		}
		n := 0
		_ = table.Scan([]byte{spacePieces}, []byte{spacePieces + 1}, func(_, _ []byte) error { n++; return nil })
		if n != c.pieces {
			t.Fatalf("%d bytes: %d pieces, want %d", c.size, n, c.pieces)
		}
	}
}
