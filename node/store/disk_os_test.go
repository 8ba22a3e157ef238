package store

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWriteSync writes durably in all the ways there are, in turn on two files, as the log does and as
// it never would; what the files hold is seen through the page cache.
func TestWriteSync(t *testing.T) {
	for _, way := range []string{"aside", "in a system call"} {
		t.Run(way, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "probe"), []byte("of a process that was killed"), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := OpenDisk(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if _, err := os.Stat(filepath.Join(dir, "probe")); !os.IsNotExist(err) {
				t.Fatal("the probe is still there", err)
			}
			if way == "aside" && !d.SyncsAside() {
				t.Skip("SKIPPED: this file system or kernel has no durable writes past the page cache")
			}
			if way != "aside" {
				d.direct.off.Store(true)
			}
			rng := rand.New(rand.NewPCG(1, 2))
			const size = 1<<20 + 100 // not in whole blocks
			var files [2]File
			var want [2][]byte
			var at [2]int
			for i, name := range []string{"a", "b"} {
				if files[i], err = d.Create(name, size); err != nil {
					t.Fatal(err)
				}
				want[i] = make([]byte, size)
			}
			for step := range 600 {
				i := rng.IntN(20) / 19
				n := 1 + rng.IntN(3000)
				switch rng.IntN(40) {
				case 0:
					n = 300_000
				case 1:
					at[i] = rng.IntN(size - n)
				case 2:
					at[i] = size - n // the last block is not whole
				}
				if at[i]+n > size {
					at[i] = 0
				}
				p := make([]byte, n)
				for k := range p {
					p[k] = byte(rng.Uint32())
				}
				copy(want[i][at[i]:], p)
				if rng.IntN(10) == 0 {
					_, err = files[i].WriteAt(p, int64(at[i]))
				} else {
					err = files[i].WriteSync(p, int64(at[i]))
				}
				if err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
				// What follows in the block is as it was, or zero.
				rest := want[i][at[i]+n : min((at[i]+n+4095)&^4095, size)]
				got := make([]byte, len(rest))
				if _, err := files[i].ReadAt(got, int64(at[i]+n)); err != nil {
					t.Fatal(err)
				}
				if bytes.Equal(got, make([]byte, len(rest))) {
					clear(rest)
				}
				at[i] += n
			}
			for i, name := range []string{"a", "b"} {
				if err := files[i].Close(); err != nil {
					t.Fatal(err)
				}
				f, err := d.Open(name)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, size)
				if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want[i]) {
					t.Errorf("%s: another content (%v)", name, err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestWaitsForSyncsIsLogged: a store that keeps a thread waiting for each sync says so when it opens.
func TestWaitsForSyncsIsLogged(t *testing.T) {
	for _, tt := range []struct{ refused, interval, want bool }{{true, false, true}, {true, true, false}, {false, false, false}} {
		disk, err := OpenDisk(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if !tt.refused && !disk.SyncsAside() {
			t.Skip("SKIPPED: this file system or kernel has no durable writes past the page cache")
		}
		disk.direct.off.Store(tt.refused)
		var out bytes.Buffer
		s, err := Open(Options{Dir: t.TempDir(), Disk: disk, Table: NewMemTable(), Interval: tt.interval, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "store_waits_for_syncs"); got != tt.want {
			t.Errorf("%+v: %s", tt, &out)
		}
		if err := errors.Join(s.Close(), disk.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestWaitsForSyncsLater: the same where such writes are refused only while it runs; it is said once.
func TestWaitsForSyncsLater(t *testing.T) {
	disk, err := OpenDisk(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	if !disk.SyncsAside() {
		t.Skip("SKIPPED: this file system or kernel has no durable writes past the page cache")
	}
	var out bytes.Buffer // read once the store is closed
	s, stop := running(t, Options{Dir: t.TempDir(), Disk: disk, Table: NewMemTable(), Logger: slog.New(slog.NewTextHandler(&out, nil))})
	put(t, s, "before", 1, 10)
	disk.direct.off.Store(true)
	put(t, s, "after", 2, 10)
	put(t, s, "later", 3, 10)
	stop()
	if n := strings.Count(out.String(), "store_waits_for_syncs"); n != 1 {
		t.Errorf("said %d times: %s", n, &out)
	}
}
