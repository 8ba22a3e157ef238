package store

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/record"
)

// verified is a table that finds itself damaged when told to.
type verified struct {
	*MemTable
	damaged atomic.Bool
}

func (v *verified) Verify() error {
	if v.damaged.Load() {
		return record.ErrCorrupt
	}
	return nil
}

func TestDamagedTableEndsTheVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &verified{MemTable: NewMemTable()}
		opts := small(Options{Disk: NewMemDisk(MemDiskOptions{}), Table: table, VerifyEvery: time.Hour})
		s, stop := running(t, opts)
		time.Sleep(10 * time.Hour)
		put(t, s, "key", 1, 0)
		table.damaged.Store(true)
		time.Sleep(time.Hour + time.Second)
		if err := tryPut(s, "key", 2, 0); !errors.Is(err, ErrFailed) || !errors.Is(err, record.ErrCorrupt) {
			t.Fatalf("after verification: %v", err)
		}
		stop()
		if _, err := Open(opts); !errors.Is(err, ErrTableDamaged) {
			t.Fatalf("next start: %v", err)
		}
		table.damaged.Store(false) // memory had been at fault
		for range 2 {
			s, stop = running(t, opts)
			if got(t, s, "key") != 1 {
				t.Fatal("lost")
			}
			stop()
		}
	})
}
