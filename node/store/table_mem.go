package store

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// errCrashed answers every call on a simulated device that has crashed.
var errCrashed = errors.New("store: simulated device has crashed")

// MemTable is a Table in memory for tests and simulations.
type MemTable struct {
	mu      sync.Mutex
	rows    map[string]string
	durable map[string]string // as of the end of the last Apply
	dead    bool
	err     error
	latency time.Duration
}

// NewMemTable returns an empty table.
func NewMemTable() *MemTable {
	return &MemTable{rows: map[string]string{}, durable: map[string]string{}}
}

// SetLatency makes every Apply take d, half-way through which half of its rows are written.
func (t *MemTable) SetLatency(d time.Duration) { t.set(func() { t.latency = d }) }

// SetError makes Apply fail with err; nil ends it.
func (t *MemTable) SetError(err error) { t.set(func() { t.err = err }) }

// Damage flips one bit of the value of each row whose key ends with suffix.
func (t *MemTable) Damage(suffix []byte) {
	t.set(func() {
		for k, v := range t.rows {
			if bytes.HasSuffix([]byte(k), suffix) && len(v) > 0 {
				b := []byte(v)
				b[len(b)/2] ^= 1
				t.rows[k] = string(b)
			}
		}
	})
}

func (t *MemTable) set(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

// Crash ends t, whose calls fail from now on, and returns what is found after a crash: what Apply
// has returned for, and of an unfinished Apply the rows already written, or, if rng says so, none.
func (t *MemTable) Crash(rng *rand.Rand) *MemTable {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dead = true
	next := NewMemTable()
	next.rows = maps.Clone(t.durable)
	if rng != nil && rng.IntN(2) == 0 {
		next.rows = maps.Clone(t.rows)
	}
	next.durable, next.latency = maps.Clone(next.rows), t.latency
	return next
}

// Get implements Table.
func (t *MemTable) Get(dst, key []byte) ([]byte, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead {
		return dst, false, errCrashed
	}
	v, ok := t.rows[string(key)]
	return append(dst, v...), ok, nil
}

// Apply implements Table.
func (t *MemTable) Apply(rows []Row) error {
	t.mu.Lock()
	latency := t.latency
	t.mu.Unlock()
	half := 0
	if latency > 0 {
		half = len(rows) / 2
		time.Sleep(latency / 2) // outside the lock: see MemDisk
		if err := t.write(rows[:half]); err != nil {
			return err
		}
		time.Sleep(latency - latency/2)
	}
	if err := t.write(rows[half:]); err != nil {
		return err
	}
	t.set(func() {
		store(t.durable, rows)
	})
	return nil
}

func (t *MemTable) write(rows []Row) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dead {
		return errCrashed
	}
	if t.err != nil {
		return t.err
	}
	store(t.rows, rows)
	return nil
}

func store(content map[string]string, rows []Row) {
	for _, r := range rows {
		if r.Delete {
			delete(content, string(r.Key))
		} else {
			content[string(r.Key)] = string(r.Value)
		}
	}
}

// Scan implements Table.
func (t *MemTable) Scan(from, to []byte, fn func(key, value []byte) error) error {
	t.mu.Lock()
	if t.dead {
		t.mu.Unlock()
		return errCrashed
	}
	var rows []Row
	for k, v := range t.rows {
		if k >= string(from) && k < string(to) {
			rows = append(rows, Row{Key: []byte(k), Value: []byte(v)})
		}
	}
	t.mu.Unlock()
	slices.SortFunc(rows, func(a, b Row) int { return bytes.Compare(a.Key, b.Key) })
	for _, r := range rows {
		if err := fn(r.Key, r.Value); err != nil {
			return err
		}
	}
	return nil
}

// Close implements Table; the content stays.
func (t *MemTable) Close() error { return nil }
