package nodetest

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"kai/node/record"
	"kai/node/ring"
)

// disk is what survives a crash: what was synced.
type disk struct {
	mu      sync.Mutex
	records map[string][]byte
	of      map[string]ring.Partition // by key
	meta    map[string][]byte
	latency func() time.Duration
}

func newDisk(latency func() time.Duration) *disk {
	return &disk{records: map[string][]byte{}, of: map[string]ring.Partition{}, meta: map[string][]byte{}, latency: latency}
}

// volume is one incarnation's open store on a disk: writes become durable in order, a sync later. It
// is the plainest thing that meets replica.Storage and Journal; seeds that want more run the real
// store on a simulated disk.
type volume struct {
	d  *disk
	mu sync.Mutex
	// queue is written while a sync is under way; closed drops everything.
	queue   []staged
	flying  []staged // of queue, what a sync under way takes along, if ordered: else that is all there is when it ends
	ordered bool
	syncing bool
	closed  bool
	forgets bool // the mutant ForgetsExpired
}

type staged struct {
	name string
	meta bool
	gone bool // purged
	p    ring.Partition
	data []byte
	done interface{ Committed(error) }
}

var (
	errBusy   = errors.New("nodetest: queue full")
	errClosed = errors.New("nodetest: crashed")
)

func (v *volume) Peek(dst []byte, p ring.Partition, hash uint64, key []byte) ([]byte, bool, bool, error) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	enc, ok := v.record(key)
	return append(dst, enc...), ok, true, nil
}

func (v *volume) PeekBallot(p ring.Partition, hash uint64, key []byte) (record.Ballot, bool, bool) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	enc, ok := v.record(key)
	return record.PeekBallot(enc), ok, true
}

// record is what is there of key. v.d.mu is held.
func (v *volume) record(key []byte) (enc []byte, ok bool) {
	enc, ok = v.d.records[string(key)]
	if ok && v.forgets {
		if _, expires := record.Dead(enc, 0); expires != 0 {
			return nil, false
		}
	}
	return enc, ok
}

func (v *volume) Get(dst []byte, p ring.Partition, hash uint64, key []byte) ([]byte, bool, error) {
	enc, ok, _, err := v.Peek(dst, p, hash, key)
	return enc, ok, err
}

// Scan implements replica.Scanner.
func (v *volume) Scan(p ring.Partition, after []byte, fn func(key, enc []byte) error) error {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(v.d.records)) {
		if v.d.of[key] != p || key <= string(after) {
			continue
		}
		if err := fn([]byte(key), v.d.records[key]); err != nil {
			return err
		}
	}
	return nil
}

func (v *volume) Put(p ring.Partition, hash uint64, key, enc []byte, done interface{ Committed(error) }) {
	v.stage(staged{name: string(key), p: p, data: append([]byte(nil), enc...), done: done})
}

// Purge implements replica.Purger.
func (v *volume) Purge(p ring.Partition, hash uint64, key []byte, done interface{ Committed(error) }) {
	v.stage(staged{name: string(key), p: p, gone: true, done: done})
}

func (v *volume) PutMeta(name string, value []byte, done interface{ Committed(error) }) {
	v.stage(staged{name: name, meta: true, data: append([]byte(nil), value...), done: done})
}

func (v *volume) Meta(name string) ([]byte, error) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	return v.d.meta[name], nil
}

func (v *volume) stage(s staged) {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		s.done.Committed(errClosed)
		return
	}
	defer v.mu.Unlock()
	v.queue = append(v.queue, s)
	if !v.syncing {
		v.begin()
	}
}

// begin begins a sync. v.mu is held.
func (v *volume) begin() {
	v.syncing = true
	if v.ordered {
		v.flying, v.queue = v.queue, nil
	}
	time.AfterFunc(v.d.latency(), v.sync)
}

func (v *volume) sync() {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return
	}
	batch := v.flying
	if v.flying = nil; !v.ordered {
		batch, v.queue = v.queue, nil
	}
	v.d.mu.Lock()
	for _, s := range batch {
		switch {
		case s.meta:
			v.d.meta[s.name] = s.data
		case s.gone:
			delete(v.d.records, s.name)
			delete(v.d.of, s.name)
		default:
			v.d.records[s.name], v.d.of[s.name] = s.data, s.p
		}
	}
	v.d.mu.Unlock()
	v.mu.Unlock()
	for _, s := range batch {
		s.done.Committed(nil)
	}
	v.mu.Lock()
	v.syncing = false
	if len(v.queue) > 0 && !v.closed {
		v.begin()
	}
	v.mu.Unlock()
}

// abort ends the incarnation's access. Its callbacks hear an error, so that its goroutines end;
// nobody hears of them any more.
func (v *volume) abort() {
	v.mu.Lock()
	v.closed = true
	batch := append(v.flying, v.queue...)
	v.flying, v.queue = nil, nil
	v.mu.Unlock()
	for _, s := range batch {
		s.done.Committed(errClosed)
	}
}
