package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/record"
)

// history is what a store was told, over all its lives. A write is a record, a purge of one, or, every
// so often, a meta value.
type history struct {
	rng    *rand.Rand
	last   int                 // writes staged; a busy store's refusals are not among them
	writes map[string][]change // of each key, in order
	// acked and metaAcked are the highest writes acknowledged.
	acked, metaAcked atomic.Int64
}

// change is write n as its key saw it.
type change struct {
	n     int
	purge bool
}

// shows is what a reader finds after it; 0: nothing.
func (c change) shows() int {
	if c.purge {
		return 0
	}
	return c.n
}

// told is the Completion of write n.
type told struct {
	h    *history
	n    int
	meta bool
	err  error
}

func (w *told) Committed(err error) {
	if err != nil { // refused: before Put returned
		w.err = err
		return
	}
	if w.h.acked.Load() >= int64(w.n) {
		panic("acknowledged out of order or twice")
	}
	w.h.acked.Store(int64(w.n))
	if w.meta {
		w.h.metaAcked.Store(int64(w.n))
	}
}

// write stages the next write, unless refused.
func (h *history) write(s *Store) {
	n := h.last + 1
	w := &told{h: h, n: n, meta: h.rng.IntN(20) == 0}
	var key string
	purge := !w.meta && h.rng.IntN(3) == 0
	if w.meta {
		key = "meta-" + strconv.Itoa(h.rng.IntN(3))
		s.PutMeta(key, []byte(strconv.Itoa(n)), w)
	} else {
		key = "key-" + strconv.Itoa(h.rng.IntN(40))
		p, _ := place([]byte(key))
		if purge {
			s.Purge(p, h.hash(key), []byte(key), w)
		} else {
			s.Put(p, h.hash(key), []byte(key), counted([]byte(key), uint64(n), h.rng.IntN(400)), w)
		}
	}
	if w.err == nil {
		h.last = n
		h.writes[key] = append(h.writes[key], change{n, purge})
	}
}

// hash gives some keys the same one.
func (h *history) hash(key string) uint64 {
	if n, _ := strconv.Atoi(key[4:]); n%5 == 0 {
		return uint64(n % 10)
	}
	_, hash := place([]byte(key))
	return hash
}

func (h *history) read(t *testing.T, s *Store, key string) int {
	var text []byte
	var err error
	if key[:4] == "meta" {
		text, err = s.Meta(key)
		n, _ := strconv.Atoi(string(text))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		return n
	}
	p, _ := place([]byte(key))
	enc, found, err := s.Get(nil, p, h.hash(key), []byte(key))
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	if !found {
		return 0
	}
	return int(record.PeekBallot(enc).Stamp)
}

// look reads a key in the midst of it: what was acknowledged by now must be there.
func (h *history) look(t *testing.T, s *Store) {
	t.Helper()
	key := "key-" + strconv.Itoa(h.rng.IntN(40))
	if h.rng.IntN(10) == 0 {
		key = "meta-" + strconv.Itoa(h.rng.IntN(3))
	}
	acked := h.acked.Load()
	have := h.read(t, s, key)
	// The last acknowledged, or one that came after it.
	var least change
	ok := false
	for _, c := range h.writes[key] {
		if int64(c.n) <= acked {
			least, ok = c, false
		}
		ok = ok || have == c.shows()
	}
	if !ok && (least.n > 0 || have != 0) {
		t.Fatalf("%s is of write %d, but its write %+v is acknowledged, and %d the last", key, have, least, h.last)
	}
}

// check demands that the store is in the state after some write m, m ≥ least; what came later is
// forgotten by the history too.
func (h *history) check(t *testing.T, s *Store, least int64) {
	t.Helper()
	state := map[string]int{}
	for key := range h.writes {
		state[key] = h.read(t, s, key)
	}
	// The last such m, if a purge of what is not there makes them several.
	m := h.last
	for ; m >= int(least); m-- {
		if maps.Equal(state, h.after(m)) {
			break
		}
	}
	if m < int(least) {
		t.Fatalf("no state after write %d, which was acknowledged, or a later one: %v", least, state)
	}
	for key, writes := range h.writes {
		h.writes[key] = slices.DeleteFunc(writes, func(c change) bool { return c.n > m })
	}
	h.acked.Store(int64(m))
	h.metaAcked.Store(int64(m))
}

// after is what readers find after write m.
func (h *history) after(m int) map[string]int {
	state := map[string]int{}
	for key, writes := range h.writes {
		state[key] = 0
		for _, c := range writes {
			if c.n <= m {
				state[key] = c.shows()
			}
		}
	}
	return state
}

func TestCrashes(t *testing.T) {
	for _, interval := range []bool{false, true} {
		for seed := range uint64(30) {
			t.Run(fmt.Sprintf("interval=%v/%d", interval, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { crashes(t, seed, interval) })
			})
		}
	}
}

func crashes(t *testing.T, seed uint64, interval bool) {
	rng := rand.New(rand.NewPCG(seed, 9))
	opts := small(Options{Interval: interval, CacheBytes: 1 << 19, BootID: "0"})
	opts.MaxRecordBytes = 1 << 10
	opts.SegmentBytes = 8 << 10
	disk := NewMemDisk(MemDiskOptions{SyncLatency: func() time.Duration {
		return time.Duration(rand.IntN(2000)) * time.Microsecond
	}})
	table := NewMemTable()
	table.SetLatency(3 * time.Millisecond)
	h := &history{rng: rng, writes: map[string][]change{}}
	var least int64
	for life := range 8 {
		opts.Disk, opts.Table, opts.BootID = disk, table, strconv.Itoa(life)
		s, err := Open(opts)
		if err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		if life > 0 && (s.CleanStop() || s.Amnesia() != interval) {
			t.Fatalf("life %d: clean %v, amnesia %v", life, s.CleanStop(), s.Amnesia())
		}
		h.check(t, s, least)
		ran := make(chan error, 1)
		go func() { ran <- s.Run(t.Context()) }()
		for range 30 + rng.IntN(400) {
			h.write(s)
			h.look(t, s)
			if rng.IntN(10) == 0 {
				time.Sleep(time.Duration(rng.IntN(6000)) * time.Microsecond)
			}
		}
		s.Abort()
		// What was acknowledged must be there; with interval, metas and what came before them.
		least = h.acked.Load()
		if interval {
			least = h.metaAcked.Load()
		}
		disk, table = disk.Crash(rng), table.Crash(rng)
		if err := <-ran; err != nil {
			t.Fatalf("life %d: run: %v", life, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		// Sometimes the next start dies too, half-way through.
		if rng.IntN(2) == 0 {
			disk, table = failedStart(t, opts, disk, table, rng)
		}
	}
}

// failedStart opens the store on failing devices, then lets the machine crash.
func failedStart(t *testing.T, opts Options, disk *MemDisk, table *MemTable, rng *rand.Rand) (*MemDisk, *MemTable) {
	eio := errors.New("simulated")
	switch rng.IntN(4) {
	case 0:
		disk.SetFaults(MemDiskFaults{Create: eio, Write: eio})
	case 1:
		disk.SetFaults(MemDiskFaults{Sync: eio})
	case 2:
		table.SetError(eio)
	}
	opts.Disk, opts.Table = disk, table
	if s, err := Open(opts); err == nil {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return disk.Crash(rng), table.Crash(rng)
}
