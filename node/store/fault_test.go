package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/record"
)

// bubble runs a store on a simulated disk in virtual time.
func bubble(t *testing.T, change func(*Options), test func(t *testing.T, s *Store, disk *MemDisk, table *MemTable)) {
	synctest.Test(t, func(t *testing.T) {
		disk, table := NewMemDisk(MemDiskOptions{}), NewMemTable()
		opts := small(Options{Disk: disk, Table: table, CacheBytes: 1 << 20})
		if change != nil {
			change(&opts)
		}
		s, stop := running(t, opts)
		synctest.Wait()
		test(t, s, disk, table)
		stop()
	})
}

func TestFailedDeviceFailsAllLaterWrites(t *testing.T) {
	eio := syscall.EIO
	for name, faults := range map[string]MemDiskFaults{"sync": {Sync: eio}, "write": {Write: eio}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, s *Store, disk *MemDisk, _ *MemTable) {
				put(t, s, "before", 1, 0)
				disk.SetFaults(faults)
				if err := tryPut(s, "during", 2, 0); !errors.Is(err, ErrFailed) || !errors.Is(err, eio) {
					t.Fatalf("during: %v", err)
				}
				disk.SetFaults(MemDiskFaults{})
				time.Sleep(time.Minute) // by now, Run has returned
				if err := tryPut(s, "after", 3, 0); !errors.Is(err, ErrFailed) {
					t.Fatalf("after: %v", err)
				}
				if got(t, s, "before") != 1 || got(t, s, "during") != 0 || !s.Stats().Failed {
					t.Fatal("reads must go on, with what was committed")
				}
			})
		})
	}
}

func TestFailedTableFailsAllLaterWrites(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Store, _ *MemDisk, table *MemTable) {
		table.SetError(syscall.EIO)
		var err error
		for i := 0; i < 1000 && !errors.Is(err, ErrFailed); i++ {
			err = tryPut(s, "key", uint64(i+1), 900)
			synctest.Wait()
		}
		if !errors.Is(err, ErrFailed) {
			t.Fatalf("last: %v", err)
		}
	})
}

func TestIntervalSyncFailure(t *testing.T) {
	bubble(t, func(o *Options) { o.Interval = true }, func(t *testing.T, s *Store, disk *MemDisk, _ *MemTable) {
		disk.SetFaults(MemDiskFaults{Sync: syscall.EIO})
		put(t, s, "key", 1, 0) // acknowledged before the sync
		if s.Failure() != nil {
			t.Fatal("failed before the sync")
		}
		<-s.Failed() // without another write
		if err := tryPut(s, "key", 2, 0); !errors.Is(err, ErrFailed) {
			t.Fatalf("after the sync: %v", err)
		}
	})
}

func TestFullDiskRefusesRecordsUntilThereIsSpace(t *testing.T) {
	grow := func(o *Options) {
		o.ReserveBytes = 64 << 10
		o.Disk.(*MemDisk).SetCapacity(200 << 10)
	}
	bubble(t, grow, func(t *testing.T, s *Store, disk *MemDisk, _ *MemTable) {
		put(t, s, "key", 1, 0)
		disk.SetCapacity(60 << 10)
		time.Sleep(2 * time.Second)
		if err := tryPut(s, "key", 2, 0); !errors.Is(err, ErrFull) {
			t.Fatalf("full: %v", err)
		}
		w := make(waiter, 1)
		s.PutMeta("fence", []byte("x"), w)
		if err := <-w; err != nil {
			t.Fatalf("meta when full: %v", err)
		}
		if got(t, s, "key") != 1 {
			t.Fatal("a refused write did something")
		}
		disk.SetCapacity(200 << 10)
		time.Sleep(2 * time.Second)
		put(t, s, "key", 3, 0)
	})
}

func TestNoSpaceForASegment(t *testing.T) {
	noReuse := func(o *Options) { o.OverlayBytes = 1 << 20 }
	bubble(t, noReuse, func(t *testing.T, s *Store, disk *MemDisk, _ *MemTable) {
		disk.SetFaults(MemDiskFaults{Create: syscall.ENOSPC})
		disk.SetCapacity(1)
		var err error
		for i := 0; i < 1000 && err == nil; i++ {
			err = tryPut(s, "key", uint64(i+1), 3000)
		}
		time.Sleep(5 * time.Second)
		if err = tryPut(s, "key", 5000, 3000); !errors.Is(err, ErrFull) {
			t.Fatalf("no segment: %v", err)
		}
		disk.SetFaults(MemDiskFaults{})
		disk.SetCapacity(0)
		time.Sleep(5 * time.Second)
		put(t, s, "key", 5001, 3000)
	})
}

// Every write is answered once, whatever becomes of it.
func TestQueueIsBounded(t *testing.T) {
	opts := small(Options{Disk: NewMemDisk(MemDiskOptions{}), Table: NewMemTable()})
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	answers := make(waiter, 10000)
	var staged int
	for staged = 0; len(answers) == 0; staged++ {
		s.Put(1, uint64(staged), []byte("key"), counted([]byte("key"), 1, 100), answers)
	}
	if err := <-answers; !errors.Is(err, ErrBusy) {
		t.Fatalf("full queue: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if len(answers) != staged-1 {
		t.Fatalf("%d answers to %d writes", len(answers), staged-1)
	}
	for range staged - 1 {
		if err := <-answers; !errors.Is(err, ErrClosed) {
			t.Fatalf("closed: %v", err)
		}
	}
	s.Put(1, 1, []byte("key"), nil, answers)
	if err := <-answers; !errors.Is(err, ErrClosed) {
		t.Fatalf("after close: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	bubble(t, nil, func(t *testing.T, s *Store, _ *MemDisk, _ *MemTable) {
		if err := tryPut(s, "key", 1, 4<<10); !errors.Is(err, ErrTooLarge) {
			t.Errorf("record: %v", err)
		}
		if err := tryPut(s, strings.Repeat("k", record.MaxInternalKey+1), 1, 0); !errors.Is(err, ErrTooLarge) {
			t.Errorf("key: %v", err)
		}
		// The largest of all, many times: it must fit wherever the log stands.
		key := strings.Repeat("k", record.MaxInternalKey)
		for i := range 40 {
			put(t, s, key, uint64(i+1), 4<<10-len(counted(nil, 10, 0)))
			put(t, s, "small", uint64(i+1), i*3)
		}
	})
}

func TestAbortTellsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := NewMemDisk(MemDiskOptions{SyncLatency: func() time.Duration { return time.Second }})
		s, err := Open(small(Options{Disk: disk, Table: NewMemTable()}))
		if err != nil {
			t.Fatal(err)
		}
		ran := make(chan error, 1)
		go func() { ran <- s.Run(context.Background()) }()
		answers := make(waiter, 2)
		s.Put(0, 1, []byte("a"), counted([]byte("a"), 1, 0), answers)
		time.Sleep(time.Millisecond) // it is being synced
		s.Put(0, 2, []byte("b"), counted([]byte("b"), 2, 0), answers)
		s.Abort()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil || len(answers) != 0 {
			t.Fatalf("close: %v, %d answers", err, len(answers))
		}
	})
}

func TestDamagedRecordIsCorruptNotAbsent(t *testing.T) {
	disk, table := NewMemDisk(MemDiskOptions{}), NewMemTable()
	opts := small(Options{Disk: disk, Table: table, CacheBytes: 1 << 20})
	s, stop := running(t, opts)
	put(t, s, "good", 1, 10)
	put(t, s, "bad", 2, 10)
	w := make(waiter, 1)
	s.PutMeta("bad", []byte("value"), w)
	if err := <-w; err != nil {
		t.Fatal(err)
	}
	stop()
	table.Damage([]byte("bad"))
	s, _ = running(t, opts)
	p, h := place([]byte("bad"))
	for range 2 {
		if _, found, err := s.Get(nil, p, h, []byte("bad")); found || !errors.Is(err, record.ErrCorrupt) {
			t.Fatalf("get: %v, %v", found, err)
		}
		if _, _, known, _ := s.Peek(nil, p, h, []byte("bad")); known {
			t.Fatal("a damaged record got into the cache")
		}
	}
	if _, err := s.Meta("bad"); !errors.Is(err, record.ErrCorrupt) {
		t.Fatalf("meta: %v", err)
	}
	if err := s.Scan(p, nil, func(_, _ []byte) error { return nil }); !errors.Is(err, record.ErrCorrupt) {
		t.Fatalf("scan: %v", err)
	}
	if got(t, s, "good") != 1 || s.Stats().Corrupt == 0 {
		t.Fatal("the others must be served, and the damage counted")
	}
	put(t, s, "bad", 3, 10)
	if got(t, s, "bad") != 3 {
		t.Fatal("a damaged record can be written again")
	}
}

// A flipped bit in a table file never changes a record. If one can make a record vanish, which
// Badger does not exclude, Verify finds it.
func TestDamagedTableFile(t *testing.T) {
	opts := small(Options{Dir: t.TempDir()})
	s, stop := running(t, opts)
	for i := range 40 {
		put(t, s, fmt.Sprintf("key-%d", i), uint64(i+1), 30)
	}
	stop()
	files, err := filepath.Glob(filepath.Join(opts.Dir, "table", "*.sst"))
	if err != nil || len(files) == 0 {
		t.Fatalf("table files: %v, %v", files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var noticed int
	for at := 0; at < len(whole); at += len(whole) / 40 {
		bad := append([]byte(nil), whole...)
		bad[at] ^= 0x10
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if !intact(t, opts.Dir) {
			noticed++
		}
	}
	if noticed == 0 {
		t.Error("no damage was noticed")
	}
}

// intact reads all of a table; false: an error was reported. Wrong answers end the test.
func intact(t *testing.T, dir string) bool {
	opts := small(Options{Dir: dir})
	if err := opts.fill(); err != nil {
		t.Fatal(err)
	}
	table, err := OpenBadger(opts)
	if err != nil {
		return false
	}
	defer table.Close()
	whole := table.Verify() == nil
	for i := range 40 {
		key := fmt.Appendf(nil, "key-%d", i)
		p, _ := place(key)
		enc, found, err := table.Get(nil, appendTableKey(nil, p, key))
		switch {
		case err != nil:
			whole = false
		case !found && whole:
			t.Fatalf("%s has vanished", key)
		case record.Check(key, enc) != nil:
			whole = false
		}
	}
	return whole
}

func TestDirectoryIsLocked(t *testing.T) {
	opts := small(Options{Dir: t.TempDir()})
	_, stop := running(t, opts)
	if _, err := Open(opts); !errors.Is(err, ErrInUse) {
		t.Fatalf("second open: %v", err)
	}
	stop()
	_, stop = running(t, opts)
	stop()
}

func TestAmnesia(t *testing.T) {
	for _, c := range []struct {
		interval, clean, reboot, want bool
	}{
		{true, false, true, true}, {true, false, false, false}, {true, true, true, false}, {false, false, true, false},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			disk, table := NewMemDisk(MemDiskOptions{}), NewMemTable()
			opts := small(Options{Disk: disk, Table: table, Interval: c.interval, BootID: "a"})
			s, err := Open(opts)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- s.Run(ctx) }()
			if !c.clean {
				s.Abort()
			}
			cancel()
			if err := errors.Join(<-ran, s.Close()); err != nil {
				t.Fatal(err)
			}
			if c.reboot {
				opts.BootID = "b"
			}
			// It is asked again at each start until it is dealt with, even if the setting changes.
			for round := range 3 {
				opts.Interval = round == 0 == c.interval
				s, err := Open(opts)
				if err != nil {
					t.Fatal(err)
				}
				want := c.want && round < 2
				if s.Amnesia() != want || round == 0 && s.CleanStop() != c.clean {
					t.Fatalf("round %d: amnesia %v, clean %v", round, s.Amnesia(), s.CleanStop())
				}
				if round == 1 {
					if err := s.ClearAmnesia(); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestRunReturnsAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := NewMemDisk(MemDiskOptions{SyncLatency: func() time.Duration { return time.Millisecond }})
		s, err := Open(small(Options{Disk: disk, Table: NewMemTable()}))
		if err != nil {
			t.Fatal(err)
		}
		disk.SetFaults(MemDiskFaults{Sync: syscall.EIO})
		const writes = 100
		answers := make(waiter, writes)
		go func() {
			for range writes { // before, during and after
				time.Sleep(50 * time.Microsecond)
				s.Put(0, 1, []byte("a"), counted([]byte("a"), 1, 0), answers)
			}
		}()
		if err := s.Run(t.Context()); !errors.Is(err, ErrFailed) {
			t.Fatalf("run: %v", err)
		}
		for range writes {
			if err := <-answers; !errors.Is(err, ErrFailed) {
				t.Fatalf("write: %v", err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestOpenOnFullDisk: who cannot begin its log for lack of room says how much it takes.
func TestOpenOnFullDisk(t *testing.T) {
	disk := NewMemDisk(MemDiskOptions{})
	disk.SetFaults(MemDiskFaults{Create: syscall.ENOSPC})
	_, err := Open(Options{Dir: t.TempDir(), Disk: disk, Table: NewMemTable(), SegmentBytes: 32 << 20, ReserveBytes: 512 << 20})
	for _, part := range []string{"no space left on device", "a segment of the log takes 32 MiB", "more than 512 MiB are free"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("what it is has been lost: %v", err)
	}
}
