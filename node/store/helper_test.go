package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"kai/node/record"
	"kai/node/ring"
)

// waiter hears of one write.
type waiter chan error

func (w waiter) Committed(err error) { w <- err }

// counted encodes a record of key that says n and is sized by pad.
func counted(key []byte, n uint64, pad int) []byte {
	value := append(fmt.Appendf(nil, "%d ", n), make([]byte, pad)...)
	return record.Append(nil, key, &record.Record{
		Ballot: record.Ballot{Epoch: 1, Stamp: record.Stamp(n)}, Version: record.Version(n), CAS: record.Version(n),
		Kind: record.Value, Value: value,
	})
}

const testPartitions = 16

func place(key []byte) (ring.Partition, uint64) {
	h := ring.Hash(key)
	return ring.PartitionOf(h, testPartitions), h
}

// put writes and waits, and tries again when the store is busy: small segments are soon full.
func put(t testing.TB, s *Store, key string, n uint64, pad int) {
	t.Helper()
	insist(t, "put "+key, func() error { return tryPut(s, key, n, pad) })
}

// purge removes a record as put writes one.
func purge(t testing.TB, s *Store, key string) {
	t.Helper()
	insist(t, "purge "+key, func() error { return tryPurge(s, key) })
}

func insist(t testing.TB, what string, try func() error) {
	t.Helper()
	err := try()
	for ; errors.Is(err, ErrBusy); err = try() {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func tryPurge(s *Store, key string) error {
	p, h := place([]byte(key))
	w := make(waiter, 1)
	s.Purge(p, h, []byte(key), w)
	return <-w
}

func tryPut(s *Store, key string, n uint64, pad int) error {
	p, h := place([]byte(key))
	w := make(waiter, 1)
	s.Put(p, h, []byte(key), counted([]byte(key), n, pad), w)
	return <-w
}

// got returns the number in key's record; 0: absent.
func got(t testing.TB, s *Store, key string) uint64 {
	t.Helper()
	p, h := place([]byte(key))
	enc, found, err := s.Get(nil, p, h, []byte(key))
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if !found {
		return 0
	}
	if err := record.Check([]byte(key), enc); err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	return uint64(record.PeekBallot(enc).Stamp)
}

// running opens a store and runs it; stop ends it cleanly, and is called at the end of the test.
func running(t testing.TB, opts Options) (s *Store, stop func()) {
	t.Helper()
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ran; err != nil && s.failed() == nil {
				t.Errorf("run: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return s, stop
}

// small makes everything small, so that a test of few writes goes through all of it.
func small(o Options) Options {
	o.MaxRecordBytes = 4 << 10
	o.OverlayBytes = 32 << 10
	o.chunkBytes = 1 << 10
	o.SegmentBytes = 16 << 10
	o.ReserveBytes = -1
	o.MemTableBytes = 1 << 20
	return o
}
