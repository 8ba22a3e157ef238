package nodetest

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"kai/node/replica"
	"kai/node/ring"
	"kai/node/store"
)

// medium is what one incarnation writes to.
type medium interface {
	replica.Storage
	replica.Scanner
	replica.Purger
	replica.Journal
	abort()
}

// realDisk is a simulated disk and table under the real store: its commit log, recovery, overlay and
// cache run in the simulation.
type realDisk struct {
	disk  *store.MemDisk
	table *store.MemTable
	rng   *rand.Rand
	lat   func() time.Duration
}

func newRealDisk(seed uint64, latency func() time.Duration) *realDisk {
	d := &realDisk{rng: rand.New(rand.NewPCG(seed, 5)), lat: latency}
	d.wipe()
	return d
}

func (d *realDisk) wipe() {
	d.disk, d.table = store.NewMemDisk(store.MemDiskOptions{SyncLatency: d.lat}), store.NewMemTable()
}

// crash loses what was not synced, but for a random part that reached the disk all the same.
func (d *realDisk) crash() { d.disk, d.table = d.disk.Crash(d.rng), d.table.Crash(d.rng) }

// open starts the store on what the disk holds.
func (d *realDisk) open() (*realVolume, error) {
	s, err := store.Open(store.Options{
		Disk: d.disk, Table: d.table, MaxRecordBytes: 4 << 10, CacheBytes: 64 << 10, OverlayBytes: 32 << 10,
		QueueBytes: 64 << 10, SegmentBytes: 16 << 10, MemTableBytes: 16 << 10, MemTables: 1, ReserveBytes: -1,
	})
	if err != nil {
		return nil, err
	}
	v := &realVolume{Store: s, waiting: map[*heard]struct{}{}}
	go func() { _ = s.Run(context.Background()) }()
	return v, nil
}

// realVolume is one incarnation's store. An aborted store never answers, so that the volume does,
// for the goroutines of the dead to end; nobody hears of them any more.
type realVolume struct {
	*store.Store
	mu      sync.Mutex
	waiting map[*heard]struct{}
	closed  bool
}

// heard is a completion that hears once: of the store, or of the crash.
type heard struct {
	v    *realVolume
	done interface{ Committed(error) }
}

// Committed implements the store's callback.
func (h *heard) Committed(err error) {
	h.v.mu.Lock()
	_, first := h.v.waiting[h]
	delete(h.v.waiting, h)
	h.v.mu.Unlock()
	if first {
		h.done.Committed(err)
	}
}

func (v *realVolume) hear(done interface{ Committed(error) }) (*heard, bool) {
	h := &heard{v, done}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, false
	}
	v.waiting[h] = struct{}{}
	return h, true
}

func (v *realVolume) Put(p ring.Partition, hash uint64, key, enc []byte, done interface{ Committed(error) }) {
	if h, ok := v.hear(done); ok {
		v.Store.Put(p, hash, key, enc, h)
		return
	}
	done.Committed(errClosed)
}

// Purge implements replica.Purger.
func (v *realVolume) Purge(p ring.Partition, hash uint64, key []byte, done interface{ Committed(error) }) {
	if h, ok := v.hear(done); ok {
		v.Store.Purge(p, hash, key, h)
		return
	}
	done.Committed(errClosed)
}

func (v *realVolume) PutMeta(name string, value []byte, done interface{ Committed(error) }) {
	if h, ok := v.hear(done); ok {
		v.Store.PutMeta(name, value, h)
		return
	}
	done.Committed(errClosed)
}

func (v *realVolume) abort() {
	v.Abort()
	v.mu.Lock()
	v.closed = true
	waiting := v.waiting
	v.waiting = nil
	v.mu.Unlock()
	for h := range waiting {
		h.done.Committed(errClosed)
	}
}

var _ medium = (*realVolume)(nil)
