package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// killed runs a store on a real disk and Badger and returns a copy of its directory as a killed
// process leaves it: nothing flushed, nothing closed.
func killed(t *testing.T, opts Options, writes int) (dir string, want map[string]uint64) {
	t.Helper()
	opts.Dir = t.TempDir()
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- s.Run(t.Context()) }()
	want = map[string]uint64{}
	for n := range uint64(writes) {
		key := fmt.Sprintf("key-%d", n*11%70)
		if n%3 == 2 {
			purge(t, s, key)
			want[key] = 0
			continue
		}
		put(t, s, key, n+1, int(n%700))
		want[key] = n + 1
	}
	s.Abort()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	dir = copyDir(t, opts.Dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, want
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestKilledProcessLosesNothing(t *testing.T) {
	for _, interval := range []bool{false, true} { // the page cache survives a process
		for _, writes := range []int{0, 1, 40, 500} {
			dir, want := killed(t, small(Options{Interval: interval}), writes)
			opts := small(Options{Dir: dir})
			for range 2 {
				s, stop := running(t, opts)
				for key, n := range want {
					if have := got(t, s, key); have != n {
						t.Fatalf("%d writes: %s is %d, want %d", writes, key, have, n)
					}
				}
				stop()
			}
		}
	}
}

// TestEmptyFiles: a process killed between making one of Badger's logs and giving it its size leaves an empty file.
func TestEmptyFiles(t *testing.T) {
	for _, writes := range []int{-1, 0, 500} { // -1: it was the first file of all
		for _, name := range []string{"%05d.mem", "%06d.vlog"} {
			dir, want, number := t.TempDir(), map[string]uint64{}, 1
			if writes >= 0 {
				dir, want = killed(t, small(Options{}), writes)
				number = 999
			}
			if err := os.MkdirAll(filepath.Join(dir, "table"), 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "table", fmt.Sprintf(name, number))
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s, stop := running(t, small(Options{Dir: dir}))
			for key, n := range want {
				if have := got(t, s, key); have != n {
					t.Fatalf("%s: %s is %d, want %d", path, key, have, n)
				}
			}
			stop()
		}
	}
}

// Badger cuts a damaged memtable log without a word. The store must notice, or have it all anyway.
func TestDamagedMemtableLog(t *testing.T) {
	dir, want := killed(t, small(Options{}), 500)
	logs, err := filepath.Glob(filepath.Join(dir, "table", "*.mem"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("%v, %v", logs, err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	refused := 0
	for range 25 {
		bad := copyDir(t, dir)
		name := filepath.Join(bad, "table", filepath.Base(logs[rng.IntN(len(logs))]))
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		content[20+rng.IntN(64<<10)] ^= 1
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(small(Options{Dir: bad}))
		if errors.Is(err, ErrLogCorrupt) {
			refused++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for key, n := range want {
			if have := got(t, s, key); have != n {
				t.Fatalf("%s is %d, want %d", key, have, n)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of 25 refused", refused)
}
