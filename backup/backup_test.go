package backup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
)

const (
	testPartitions = 16
	testLeaves     = 8
)

// held is a Source: the records of a cluster, by partition and key.
type held struct {
	mu         sync.Mutex
	partitions [testPartitions]map[string]string
	fail       error
}

func newHeld(n int, size int) *held {
	h := &held{}
	for p := range h.partitions {
		h.partitions[p] = map[string]string{}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		value := make([]byte, size)
		for k := range value {
			value[k] = byte(r.Uint32())
		}
		h.set(fmt.Sprint("key", i), string(value))
	}
	return h
}

func hashOf(s ...string) uint64 {
	h := fnv.New64a()
	for _, s := range s {
		fmt.Fprintf(h, "%d %s", len(s), s)
	}
	return h.Sum64()
}

func (h *held) set(key, value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.partitions[hashOf(key)%testPartitions][key] = value
}

func (h *held) clone() (c [testPartitions]map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range c {
		c[p] = maps.Clone(h.partitions[p])
	}
	return c
}

func leafOf(key string) int { return int(hashOf(key) / testPartitions % testLeaves) }

func (h *held) Sums(_ context.Context, p int) ([]uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sums := make([]uint64, testLeaves)
	for k, v := range h.partitions[p] {
		sums[leafOf(k)] += hashOf(k, v)
	}
	return sums, h.fail
}

func (h *held) Records(_ context.Context, p int, leaves []int, yield func(Record) error, pause func() error) error {
	h.mu.Lock()
	all := maps.Clone(h.partitions[p])
	h.mu.Unlock()
	for k, v := range all {
		if l := leafOf(k); slices.Contains(leaves, l) {
			if err := errors.Join(yield(Record{Key: []byte(k), Value: []byte(v), Leaf: l, Sum: hashOf(k, v)}), pause()); err != nil {
				return err
			}
		}
	}
	return nil
}

func options(b *Bucket, node string, s Source) Options {
	return Options{Bucket: b, Cluster: "c", Node: node, Partitions: testPartitions, Leaves: testLeaves, Source: s,
		Patience: time.Hour, Look: time.Second, Logger: slog.New(slog.DiscardHandler)}
}

func allNow(int) time.Duration { return 0 }

func take(t *testing.T, b *Bucket, id string, s Source) Done {
	t.Helper()
	done, err := New(options(b, "n1", s)).Take(t.Context(), id, allNow)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// restored brings a snapshot back into maps.
func restored(t *testing.T, b *Bucket, m *Manifest) (got [testPartitions]map[string]string) {
	t.Helper()
	for p := range got {
		got[p] = map[string]string{}
	}
	var n int64
	done, err := Restore(t.Context(), b, m, func(int) bool { return true }, false, func(_ context.Context, p int, items []Item) error {
		for _, it := range items {
			if _, twice := got[p][string(it.Key)]; twice {
				t.Errorf("%s twice", it.Key)
			}
			got[p][string(it.Key)] = string(it.Value)
			n++
		}
		return nil
	})
	if err != nil || done.Records != n || done.Partitions != testPartitions {
		t.Fatalf("%+v, %v", done, err)
	}
	return got
}

func same(t *testing.T, got, want [testPartitions]map[string]string) {
	t.Helper()
	for p := range want {
		if !maps.Equal(got[p], want[p]) {
			t.Errorf("partition %d: %d records, want %d", p, len(got[p]), len(want[p]))
		}
	}
}

func verify(t *testing.T, b *Bucket, m *Manifest) {
	t.Helper()
	for _, data := range []bool{false, true} {
		if faults, err := Verify(t.Context(), b, m, data, nil); err != nil || len(faults) > 0 {
			t.Errorf("data %v: %v, %v", data, faults, err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	everyBucket(t, func(t *testing.T, b *Bucket) {
		h := newHeld(2000, 100)
		h.set("large", strings.Repeat("x", 3<<20))
		h.set("empty", "")
		first := take(t, b, "one", h)
		if again := take(t, b, "one", h); again.Manifest == nil || again.Puts != 0 {
			t.Errorf("a complete snapshot is taken again: %+v", again)
		}
		want := h.clone()
		same(t, restored(t, b, first.Manifest), want)
		verify(t, b, first.Manifest)
		// A second one uploads what has changed, and needs nothing of the first but packs.
		h.set("key7", "changed")
		h.set("new", "new")
		second := take(t, b, "two", h)
		if second.Bytes > first.Bytes/5 || second.Unchanged < second.Leaves-3 || second.Parent != "one" {
			t.Errorf("the second uploads %d bytes, the first %d; %d of %d leaves unchanged", second.Bytes, first.Bytes, second.Unchanged, second.Leaves)
		}
		same(t, restored(t, b, second.Manifest), h.clone())
		same(t, restored(t, b, first.Manifest), want)
		verify(t, b, second.Manifest)
		all, err := List(t.Context(), b)
		if err != nil || len(all) != 2 || all[0].Snapshot != "one" || all[1].Snapshot != "two" || !all[1].Complete() {
			t.Errorf("%+v, %v", all, err)
		}
		t.Logf("first %d bytes in %d puts, second %d in %d", first.Bytes, first.Puts, second.Bytes, second.Puts)
	})
}

// A partition larger than what is held at once comes in several rounds; each leaf in several pieces.
func TestLargePartition(t *testing.T) {
	_, b := newFaultBucket(1)
	h := newHeld(0, 0)
	for i := range 500 {
		h.partitions[3][fmt.Sprint("key", i)] = strings.Repeat(fmt.Sprint(i), 100<<10/len(fmt.Sprint(i)))
	}
	done := take(t, b, "one", h)
	same(t, restored(t, b, done.Manifest), h.clone())
	verify(t, b, done.Manifest)
	table, err := done.Entries[3].open(t.Context(), b, testLeaves)
	if err != nil || len(table.frames) < 40 || len(table.leaves[0].pieces) < 3 {
		t.Errorf("%d frames, %v", len(table.frames), err)
	}
}

// What a snapshot works on is told in small pieces before: once as it is read, once as it is compressed, and something for each partition. Nothing more has to be told for what has not changed.
func TestGivesWay(t *testing.T) {
	b := &Bucket{Bucket: memblob.OpenBucket(nil)}
	defer b.Close()
	h := newHeld(20_000, 300)
	var total, most, calls atomic.Int64
	o := options(b, "n1", h)
	o.GiveWay = func(_ context.Context, n int) {
		total.Add(int64(n))
		calls.Add(1)
		for was := most.Load(); int64(n) > was && !most.CompareAndSwap(was, int64(n)); was = most.Load() {
		}
	}
	done, err := New(o).Take(t.Context(), "1", allNow)
	if err != nil {
		t.Fatal(err)
	}
	raw := int64(0)
	for _, e := range done.Entries {
		raw += e.Bytes
	}
	if got := total.Load() - testPartitions*partitionCost; got < 2*raw*95/100 || got > 2*raw || most.Load() > partitionCost {
		t.Errorf("%d bytes of records: %d were told, %d at once at most", raw, got, most.Load())
	}
	if got := restored(t, b, done.Manifest); !reflect.DeepEqual(got, h.clone()) {
		t.Error("what comes back is not what was there")
	}
	calls.Store(0)
	if _, err := New(o).Take(t.Context(), "2", allNow); err != nil || calls.Load() != testPartitions {
		t.Errorf("nothing has changed: told %d times, %v", calls.Load(), err)
	}
}

// Many changes later no frame is kept for a small rest of it, and the size of a snapshot is that of its records.
func TestOldFramesGo(t *testing.T) {
	f, b := newFaultBucket(1)
	h := newHeld(3000, 100)
	take(t, b, "s000", h)
	r := rand.New(rand.NewPCG(5, 5))
	var last Done
	for i := range 30 {
		for range 30 {
			h.set(fmt.Sprint("key", r.IntN(3000)), fmt.Sprintf("%0100d", r.Uint64()))
		}
		last = take(t, b, fmt.Sprintf("s%03d", i+1), h)
	}
	same(t, restored(t, b, last.Manifest), h.clone())
	var frames, live int64
	packs := map[PackID]int64{}
	for _, e := range last.Entries {
		tab, err := e.open(t.Context(), b, testLeaves)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range tab.frames {
			frames += f.own
		}
		for _, p := range e.Packs {
			packs[p.ID] = p.Size
		}
		live += e.Bytes
	}
	if frames > 2*live {
		t.Errorf("frames of %d bytes for %d of records", frames, live)
	}
	// A pack stays as long as anyone has a frame there.
	var held int64
	for _, size := range packs {
		held += size
	}
	if held > 4*live {
		t.Errorf("packs of %d bytes for %d of records", held, live)
	}
	// And prune frees the packs that nothing names.
	before := len(f.objects)
	for range 3 {
		f.age += 2 * time.Hour
		if _, err := Prune(t.Context(), b, PruneOptions{Keep: 2, Grace: time.Nanosecond}); err != nil {
			t.Fatal(err)
		}
	}
	if after := len(f.objects); after >= before/2 {
		t.Errorf("%d objects of %d are left", after, before)
	}
	same(t, restored(t, b, last.Manifest), h.clone())
	verify(t, b, last.Manifest)
}

// Three nodes that hold all share the work; a node that does nothing is stood in for; every partition is
// uploaded about once.
func TestNodesShareTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, b := newFaultBucket(1)
		h := newHeld(1000, 50)
		var wg sync.WaitGroup
		var mu sync.Mutex
		uploads := 0
		for i := range 3 {
			if i == 1 {
				continue // down
			}
			wg.Go(func() {
				s := New(options(b, fmt.Sprint("n", i), h))
				done, err := s.Take(t.Context(), "one", func(p int) time.Duration { return time.Duration((p+i)%3) * time.Minute })
				if err != nil || done.Manifest == nil {
					t.Error(err)
				}
				mu.Lock()
				uploads += done.Partitions
				mu.Unlock()
			})
		}
		wg.Wait()
		if uploads != testPartitions {
			t.Errorf("%d uploads of %d partitions", uploads, testPartitions)
		}
		m, err := Open(t.Context(), b, "one")
		if err != nil {
			t.Fatal(err)
		}
		same(t, restored(t, b, m), h.clone())
	})
}

// slowly is a source that takes a while for each partition.
type slowly struct {
	*held
	takes time.Duration
}

func (s slowly) Sums(ctx context.Context, p int) ([]uint64, error) {
	time.Sleep(s.takes)
	return s.held.Sums(ctx, p)
}

// Nobody steps in for a node that is slow, but goes on, however long that takes.
func TestSlowNodesShareTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, b := newFaultBucket(1)
		h := newHeld(1000, 50)
		var wg sync.WaitGroup
		var uploads atomic.Int64
		began := time.Now()
		for i := range 3 {
			wg.Go(func() {
				s := New(options(b, fmt.Sprint("n", i), slowly{h, time.Duration(10+15*i) * time.Second}))
				done, err := s.Take(t.Context(), "one", func(p int) time.Duration { return time.Duration((p+i)%3) * time.Minute })
				if err != nil || done.Manifest == nil {
					t.Error(err)
				}
				uploads.Add(int64(done.Partitions))
			})
		}
		wg.Wait()
		if took := time.Since(began); uploads.Load() != testPartitions || took < 90*time.Second {
			t.Errorf("%d uploads of %d partitions in %v", uploads.Load(), testPartitions, took)
		}
	})
}

var errDied = errors.New("died")

// leaving is a source whose node is to leave amid partition 2.
type leaving struct {
	*held
	leave chan struct{}
}

func (l leaving) Sums(ctx context.Context, p int) ([]uint64, error) {
	if p == 2 {
		close(l.leave)
	}
	return l.held.Sums(ctx, p)
}

// A node that leaves amid a snapshot leaves what it has uploaded to the others.
func TestLeaves(t *testing.T) {
	b := &Bucket{Bucket: memblob.OpenBucket(nil)}
	defer b.Close()
	h := newHeld(300, 100)
	o := options(b, "n1", nil)
	l := leaving{h, make(chan struct{})}
	o.Source, o.Leave = l, l.leave
	done, err := New(o).Take(t.Context(), "one", allNow)
	if !errors.Is(err, ErrLeft) || done.Partitions != 3 || done.Manifest != nil {
		t.Fatalf("%d partitions are named, %v", done.Partitions, err)
	}
	if done, err = New(o).Take(t.Context(), "one", allNow); !errors.Is(err, ErrLeft) || done.Partitions != 0 {
		t.Errorf("once it has left it names %d partitions, %v", done.Partitions, err)
	}
	last, err := New(options(b, "n2", h)).Take(t.Context(), "one", allNow)
	if err != nil || last.Partitions != testPartitions-3 {
		t.Fatalf("the other uploads %d of %d partitions, %v", last.Partitions, testPartitions, err)
	}
	verify(t, b, last.Manifest)
	same(t, restored(t, b, last.Manifest), h.clone())
	// One that waits for others leaves at once.
	o = options(b, "n1", h)
	o.Look = time.Hour
	waits := make(chan error)
	leave := make(chan struct{})
	o.Leave = leave
	go func() {
		_, err := New(o).Take(t.Context(), "two", func(int) time.Duration { return time.Hour })
		waits <- err
	}()
	close(leave)
	if err := <-waits; !errors.Is(err, ErrLeft) {
		t.Error(err)
	}
}

// A node dies at any write of a snapshot, and a restarted one goes on; beside a bucket that throttles, is slow, loses answers, does writes twice,
// ends reads early, and refuses the node's clock, which is told, and ends that attempt. What is complete is right; what is not is not taken for complete.
func TestTakeSurvivesDeathAndFaults(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			f, b := newFaultBucket(seed)
			r := rand.New(rand.NewPCG(seed, 9))
			h := newHeld(300, 50)
			old := take(t, b, "old", h)
			oldWant := h.clone()
			for i := range 20 {
				h.set(fmt.Sprint("key", i), "new")
			}
			f.with(func() { f.rate, f.lost, f.short, f.again, f.slow = 20, 20, 20, 20, time.Second })
			ctx, die := context.WithCancelCause(t.Context())
			var left atomic.Int64 // a pack of records and one of tables may be written at once
			left.Store(r.Int64N(8))
			f.before = func(string) {
				if left.Add(-1) < 0 {
					die(errDied)
				}
			}
			_, err := New(options(b, "n1", h)).Take(ctx, "new", allNow)
			f.before = nil
			die(nil)
			f.with(func() { f.rate, f.lost, f.short, f.again, f.slow = 0, 0, 0, 0, 0 })
			m, open := Open(t.Context(), b, "new")
			if err == nil && open != nil {
				t.Errorf("seed %d: told complete, and is not: %v", seed, open)
			}
			if open == nil {
				same(t, restored(t, b, m), h.clone())
			}
			f.with(func() { f.rate, f.lost, f.short, f.again, f.slow, f.skewed = 10, 10, 10, 10, time.Second, int(seed%3) })
			var done Done
			for try := 1; ; try++ {
				if done, err = New(options(b, "n1", h)).Take(t.Context(), "new", allNow); err == nil {
					break
				}
				if !errors.Is(err, errSkewed) || try == 50 {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			f.with(func() { f.rate, f.lost, f.short, f.again, f.slow, f.skewed = 0, 0, 0, 0, 0, 0 })
			time.Sleep(time.Minute) // what is on its way comes
			same(t, restored(t, b, done.Manifest), h.clone())
			same(t, restored(t, b, old.Manifest), oldWant)
			verify(t, b, done.Manifest)
		})
	}
}

// Prune dies at any of its writes, beside a snapshot that is under way: what stays can be restored, and what
// was given up goes.
func TestPruneIsSafe(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			f, b := newFaultBucket(seed)
			r := rand.New(rand.NewPCG(seed, 9))
			h := newHeld(300, 50)
			for i := range 4 {
				h.set("key1", fmt.Sprint(i))
				take(t, b, fmt.Sprint("s", i), h)
				time.Sleep(time.Minute)
			}
			// One that was begun, with s3 for its parent, and waits for another node.
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				New(options(b, "n1", h)).Take(ctx, "s4", func(p int) time.Duration { return time.Duration(p%2) * -1 })
			})
			time.Sleep(time.Second)
			h.set("key2", "later")
			take(t, b, "s5", h)
			o := PruneOptions{Keep: 1, Grace: 2 * time.Hour}
			for range 4 {
				ctx, die := context.WithCancelCause(t.Context())
				left := r.IntN(6)
				f.before = func(string) {
					if left--; left < 0 {
						die(errDied)
					}
				}
				Prune(ctx, b, o)
				f.before = nil
				die(nil)
				time.Sleep(3 * time.Minute)
			}
			done, err := Prune(t.Context(), b, o)
			if err != nil {
				t.Fatal(err)
			}
			stop()
			wg.Wait()
			last, err := New(options(b, "n2", h)).Take(t.Context(), "s4", allNow)
			if err != nil {
				t.Fatalf("%v after %+v", err, done)
			}
			got, want := restored(t, b, last.Manifest), h.clone()
			for p := range want { // of what changed after the cut it may have either
				if v := got[p]["key2"]; v != "" {
					want[p]["key2"] = v
				}
			}
			same(t, got, want)
			for _, id := range []string{"s3", "s5"} {
				m, err := Open(t.Context(), b, id)
				if err != nil {
					t.Fatalf("%s: %v", id, err)
				}
				verify(t, b, m)
			}
			// Hours later all that is left is what the newest needs.
			for range 3 {
				time.Sleep(3 * time.Hour)
				if _, err := Prune(t.Context(), b, o); err != nil {
					t.Fatal(err)
				}
			}
			all, err := List(t.Context(), b)
			if err != nil || len(all) != 1 || all[0].Snapshot != "s5" {
				t.Errorf("%+v, %v", all, err)
			}
			verify(t, b, all[0].Manifest)
			packs := map[string]bool{}
			for _, e := range all[0].Manifest.Entries {
				for _, p := range e.Packs {
					packs[packKey(p.ID)] = true
				}
			}
			for key := range f.objects {
				if strings.HasPrefix(key, packsDir) && !packs[key] {
					t.Errorf("%s is left", key)
				}
			}
		})
	}
}

// One bit that is not as it was, an object that is gone or too short: verify names it, restore does without it.
func TestDamageIsNamed(t *testing.T) {
	f, b := newFaultBucket(1)
	h := newHeld(300, 50)
	take(t, b, "one", h)
	h.set("key1", "changed")
	done := take(t, b, "two", h)
	want := h.clone()
	harm := map[string]func(c []byte, r *rand.Rand) []byte{
		"bit": func(c []byte, r *rand.Rand) []byte {
			c = slices.Clone(c)
			c[r.IntN(len(c))] ^= 1 << r.IntN(8)
			return c
		},
		"gone":  func([]byte, *rand.Rand) []byte { return nil },
		"short": func(c []byte, r *rand.Rand) []byte { return c[:r.IntN(len(c))] },
	}
	used := map[string]bool{manifestKey("two"): true}
	for _, e := range done.Entries {
		for _, p := range e.Packs {
			used[packKey(p.ID)] = true
		}
	}
	if len(used) != 5 { // the manifest, tables and records of the first, and what has changed of both
		t.Fatalf("%d objects", len(used))
	}
	// Without retries of what is damaged, reads of what is too short take time: virtual.
	for key := range used {
		for name, harm := range harm {
			for seed := range uint64(4) {
				synctest.Test(t, func(t *testing.T) {
					whole := f.objects[key]
					defer func() { f.objects[key] = whole }()
					if c := harm(whole.content, rand.New(rand.NewPCG(seed, 3))); c == nil {
						delete(f.objects, key)
					} else {
						f.objects[key] = object{c, whole.at}
					}
					m, err := Open(t.Context(), b, "two")
					if key == manifestKey("two") {
						if err == nil {
							t.Errorf("%s %s, and opened", key, name)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					faults, err := Verify(t.Context(), b, m, true, nil)
					if err != nil || !slices.ContainsFunc(faults, func(f Fault) bool { return f.Object == key }) {
						t.Errorf("%s %s (seed %d): %v, %v", key, name, seed, faults, err)
					}
					affected := map[int]bool{}
					for _, f := range faults {
						affected[f.Partition] = true
					}
					got := map[int]int{}
					r, err := Restore(t.Context(), b, m, func(int) bool { return true }, true, func(_ context.Context, p int, items []Item) error {
						for _, it := range items {
							if v, ok := want[p][string(it.Key)]; !ok || v != string(it.Value) {
								t.Errorf("%s %s: brought back %q as %q", key, name, it.Key, it.Value)
							}
						}
						got[p] += len(items)
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
					for _, f := range r.Faults {
						if !affected[f.Partition] {
							t.Errorf("restore misses partition %d, which verify holds for whole", f.Partition)
						}
						delete(got, f.Partition)
					}
					for p, n := range got {
						if n != len(want[p]) {
							t.Errorf("partition %d: %d records of %d, and no word", p, n, len(want[p]))
						}
					}
					if len(r.Faults) > 0 {
						if _, err := Restore(t.Context(), b, m, func(int) bool { return true }, false, func(context.Context, int, []Item) error { return nil }); err == nil {
							t.Error("restored without a word")
						}
					}
				})
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	_, b := newFaultBucket(1)
	h := newHeld(10, 10)
	take(t, b, "one", h)
	for _, id := range []string{"", "a/b", "a b"} {
		if _, err := New(options(b, "n1", h)).Take(t.Context(), id, allNow); err == nil {
			t.Errorf("name %q is taken", id)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go New(options(b, "n1", h)).Take(ctx, "two", func(int) time.Duration { return time.Hour })
	for {
		if all, err := List(t.Context(), b); err != nil || len(all) == 2 {
			break
		}
	}
	o := options(b, "n2", h)
	o.Cluster = "other"
	if _, err := New(o).Take(t.Context(), "two", allNow); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("a snapshot of another cluster: %v", err)
	}
	cancel()
	if _, err := Prune(t.Context(), b, PruneOptions{}); err == nil {
		t.Error("keeps none")
	}
	if err := put(t.Context(), b, manifestKey("three"), []byte("rubbish"), false); err != nil {
		t.Fatal(err)
	}
	if _, err := Prune(t.Context(), b, PruneOptions{Keep: 1, Grace: time.Hour}); err == nil || !strings.Contains(err.Error(), "three") {
		t.Errorf("pruned beside what cannot be read: %v", err)
	}
}

// A snapshot that is pinned stays, and the oldest pinned cut is told, until the pin is released, or its owner has been dead for an hour.
func TestPin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, b := newFaultBucket(1)
		h := newHeld(50, 100)
		var all []*Manifest
		for i := range 3 {
			h.set("key1", fmt.Sprint(i))
			all = append(all, take(t, b, fmt.Sprint("s", i), h).Manifest)
			time.Sleep(time.Minute)
		}
		told := func(want time.Time) {
			t.Helper()
			if cut, err := Pinned(t.Context(), b); err != nil || !cut.Equal(want) {
				t.Errorf("pinned since %v, %v; want %v", cut, err, want)
			}
		}
		stays := func(want ...string) {
			t.Helper()
			if _, err := Prune(t.Context(), b, PruneOptions{Keep: 1, Grace: time.Hour}); err != nil {
				t.Fatal(err)
			}
			var got []string
			left, err := List(t.Context(), b)
			for _, s := range left {
				got = append(got, s.Snapshot)
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%v stay, %v; want %v", got, err, want)
			}
		}
		told(time.Time{})
		release1, err := Pin(t.Context(), b, all[1], "restore")
		if err != nil {
			t.Fatal(err)
		}
		dying, die := context.WithCancel(t.Context())
		dead := pin{Format: Format, Snapshot: "s0", Cut: all[0].Cut, Expires: time.Now().Add(pinLife)}
		content, err := seal(dead)
		if err != nil {
			t.Fatal(err)
		}
		if err := put(dying, b, pinsDir+"dead", content, false); err != nil {
			t.Fatal(err)
		}
		die()
		told(all[0].Cut)
		stays("s0", "s1", "s2")
		time.Sleep(pinLife + time.Minute)
		told(all[1].Cut)
		stays("s1", "s2")
		time.Sleep(5 * pinLife)
		told(all[1].Cut)
		release1()
		told(time.Time{})
		stays("s2")
		keys := 0
		if err := list(t.Context(), b, pinsDir, false, func(*blob.ListObject) error { keys++; return nil }); err != nil || keys != 0 {
			t.Errorf("%d pins are left, %v", keys, err)
		}
	})
}

// A cluster that was lost and founded anew, with the same bucket, neither pushes out what it is to be restored from, nor builds on it, nor
// takes it for its own.
func TestTwoClusters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, b := newFaultBucket(1)
		lost, fresh := newHeld(50, 100), newHeld(0, 0)
		first := take(t, b, "lost", lost)
		o := options(b, "n2", fresh)
		o.Cluster = "fresh"
		var last Done
		for i := range 3 {
			time.Sleep(time.Minute)
			var err error
			if last, err = New(o).Take(t.Context(), fmt.Sprint("fresh", i), allNow); err != nil {
				t.Fatal(err)
			}
			if i == 0 && last.Parent != "" {
				t.Errorf("its parent is %q", last.Parent)
			}
		}
		time.Sleep(time.Minute)
		if err := Announce(t.Context(), b, &Begin{Snapshot: "begun", Cluster: "c", Partitions: testPartitions, Leaves: testLeaves}, time.Hour); err != nil {
			t.Fatal(err)
		}
		for cluster, want := range map[string]struct {
			newest time.Time
			begun  int
		}{"c": {first.Cut, 1}, "fresh": {last.Cut, 0}, "other": {}} {
			begun, newest, err := Begun(t.Context(), b, cluster, map[string]bool{})
			var cut time.Time
			if newest != nil {
				cut = newest.Cut
			}
			if err != nil || len(begun) != want.begun || !cut.Equal(want.newest) {
				t.Errorf("%s: %v, %v, %v", cluster, begun, cut, err)
			}
		}
		left := func(o PruneOptions) (ids []string) {
			t.Helper()
			if _, err := Prune(t.Context(), b, o); err != nil {
				t.Fatal(err)
			}
			all, err := List(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range all {
				ids = append(ids, s.Snapshot)
			}
			return ids
		}
		if ids := left(PruneOptions{Keep: 1, Grace: time.Nanosecond}); !slices.Equal(ids, []string{"lost", "fresh2", "begun"}) {
			t.Errorf("left: %v", ids)
		}
		time.Sleep(2 * time.Hour) // what was begun is given up
		left(PruneOptions{Keep: 1, Grace: time.Nanosecond})
		same(t, restored(t, b, first.Manifest), lost.clone())
		if ids := left(PruneOptions{Keep: 1, Grace: time.Nanosecond, Forget: "c"}); !slices.Equal(ids, []string{"fresh2"}) {
			t.Errorf("left: %v", ids)
		}
	})
}

// A prune that dies amid a removal leaves nothing that looks as if it were under way: nodes would take that again.
func TestPruneDiesAmidARemoval(t *testing.T) {
	for left := range 12 {
		f, b := newFaultBucket(1)
		h := newHeld(50, 100)
		for i := range 3 {
			h.set("key1", fmt.Sprint(i))
			take(t, b, fmt.Sprint("s", i), h)
		}
		ctx, die := context.WithCancelCause(t.Context())
		n := left
		f.before = func(string) {
			if n--; n < 0 {
				die(errDied)
			}
		}
		o := PruneOptions{Keep: 1, Grace: time.Hour}
		_, err := Prune(ctx, b, o)
		f.before = nil
		die(nil)
		if (err == nil) != (left >= 6) { // two times parts, BEGIN, MANIFEST
			t.Fatalf("after %d: %v", left, err)
		}
		if begun, _, err := Begun(t.Context(), b, "c", map[string]bool{}); err != nil || len(begun) > 0 {
			t.Errorf("after %d deletions %v are under way, %v", left, begun, err)
		}
		if _, err := Prune(t.Context(), b, o); err != nil {
			t.Fatal(err)
		}
		if all, err := List(t.Context(), b); err != nil || len(all) != 1 || all[0].Snapshot != "s2" {
			t.Errorf("after %d deletions: %+v, %v", left, all, err)
		}
		for key := range f.objects {
			if strings.HasPrefix(key, "snapshots/s0") || strings.HasPrefix(key, "snapshots/s1") {
				t.Errorf("after %d deletions %s is left", left, key)
			}
		}
	}
}

// wideSource is a Source of one partition of many leaves, each of one record.
type wideSource []string

func (w wideSource) Sums(context.Context, int) (sums []uint64, err error) {
	for leaf, v := range w {
		sums = append(sums, hashOf(fmt.Sprint(leaf), v))
	}
	return sums, nil
}

func (w wideSource) Records(_ context.Context, _ int, leaves []int, yield func(Record) error, _ func() error) error {
	for _, leaf := range leaves {
		if err := yield(Record{Key: []byte(fmt.Sprint(leaf)), Value: []byte(w[leaf]), Leaf: leaf, Sum: hashOf(fmt.Sprint(leaf), w[leaf])}); err != nil {
			return err
		}
	}
	return nil
}

// However many snapshots of few changes there were, a partition has few frames and tables, and what is written for that is a few times what has changed.
func TestFewFrames(t *testing.T) {
	const leaves, rounds = 1000, 150
	f, b := newFaultBucket(1)
	w := make(wideSource, leaves)
	r := rand.New(rand.NewPCG(8, 8))
	value := func() string { return fmt.Sprintf("%0200x", r.Uint64()) }
	for i := range w {
		w[i] = value()
	}
	o := options(b, "n1", w)
	o.Partitions, o.Leaves = 1, leaves
	var last Done
	var written, tables, whole int64
	most, bases := 0, 0
	for i := range rounds {
		for range 3 {
			w[r.IntN(leaves)] = value()
		}
		var err error
		if last, err = New(o).Take(t.Context(), fmt.Sprintf("s%03d", i), allNow); err != nil {
			t.Fatal(err)
		}
		tab, err := last.Entries[0].open(t.Context(), b, leaves)
		if err != nil {
			t.Fatal(err)
		}
		most, bases = max(most, len(tab.frames)), max(bases, len(last.Entries[0].Bases))
		tables += last.Entries[0].Table.Length
		if i == 0 {
			whole = tables
		}
		written += int64(last.Leaves - last.Unchanged)
	}
	if most > fewFrames+1 {
		t.Errorf("%d frames", most)
	}
	if share := float64(tables-whole) / float64(whole*(rounds-1)); share > 0.2 || bases > maxBases || bases == 0 {
		t.Errorf("of %d tables each, %.2f of a whole one is written", bases+1, share)
	}
	if each := float64(written-leaves) / rounds; each > 3*12 {
		t.Errorf("%.1f leaves written for 3 that change", each)
	}
	t.Logf("at most %d frames; %.1f leaves written a snapshot for 3 that change, and %.3f of a table, in up to %d; %d objects",
		most, float64(written-leaves)/rounds, float64(tables-whole)/float64(whole*(rounds-1)), bases+1, len(f.objects))
	got := map[string]string{}
	if _, err := Restore(t.Context(), b, last.Manifest, func(int) bool { return true }, false, func(_ context.Context, _ int, items []Item) error {
		for _, it := range items {
			got[string(it.Key)] = string(it.Value)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for leaf, v := range w {
		if got[fmt.Sprint(leaf)] != v {
			t.Fatalf("leaf %d is not as it was", leaf)
		}
	}
}

// A pack that cannot be written ends the attempt, whatever is read meanwhile: no part names what is not there. The next goes on.
func TestPackIsNotWritten(t *testing.T) {
	for _, bad := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			f, b := newFaultBucket(1)
			h := newHeld(0, 0)
			r := rand.New(rand.NewPCG(1, 1))
			for i := range 60 { // 60 MB that do not compress: five packs or so; two partitions share the first, the others are of one alone
				value := make([]byte, 1<<20)
				for k := 0; k < len(value); k += 8 {
					binary.LittleEndian.PutUint64(value[k:], r.Uint64())
				}
				h.partitions[min(i/4, 1)][fmt.Sprint("key", i)] = string(value)
			}
			packs, tries := map[string]bool{}, 0
			f.before = func(key string) {
				if strings.HasPrefix(key, packsDir) {
					f.with(func() {
						if packs[key] = true; len(packs) == bad && f.never == "" {
							f.never = key
						}
						if key == f.never {
							tries++
						}
					})
				}
			}
			if done, err := New(options(b, "n1", h)).Take(t.Context(), "s", allNow); err == nil || tries < 2 {
				t.Fatalf("pack %d was tried %d times: %+v", bad, tries, done)
			}
			f.before = nil
			f.with(func() { f.never = "" })
			if err := list(t.Context(), b, partsDir("s"), false, func(o *blob.ListObject) error {
				var p Part
				if err := document(t.Context(), b, o.Key, &p); err != nil {
					return err
				}
				for _, e := range p.Entries {
					for _, pack := range e.Packs {
						if a, err := b.Attributes(t.Context(), packKey(pack.ID)); err != nil || a.Size != pack.Size {
							t.Errorf("partition %d: pack %s: %v", e.Partition, pack.ID, err)
						}
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			done, err := New(options(b, "n1", h)).Take(t.Context(), "s", allNow)
			if err != nil {
				t.Fatal(err)
			}
			verify(t, b, done.Manifest)
			same(t, restored(t, b, done.Manifest), h.clone())
		})
	}
}
