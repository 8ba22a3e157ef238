package quorum

import (
	"bytes"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/repair"
	"kai/node/replica"
	"kai/node/ring"
)

// memory is a Storage and Journal that commits within Put.
type memory struct {
	mu      sync.Mutex
	records map[string][]byte
	metas   map[string][]byte
}

func (m *memory) Peek(dst []byte, p ring.Partition, hash uint64, key []byte) ([]byte, bool, bool, error) {
	enc, found, err := m.Get(dst, p, hash, key)
	return enc, found, true, err
}

func (m *memory) PeekBallot(_ ring.Partition, _ uint64, key []byte) (record.Ballot, bool, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	enc, found := m.records[string(key)]
	return record.PeekBallot(enc), found, true
}

func (m *memory) Get(dst []byte, _ ring.Partition, _ uint64, key []byte) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	enc, found := m.records[string(key)]
	return append(dst, enc...), found, nil
}

func (m *memory) Put(_ ring.Partition, _ uint64, key, enc []byte, done interface{ Committed(error) }) {
	m.mu.Lock()
	if have, ok := m.records[string(key)]; ok && cap(have) >= len(enc) {
		m.records[string(key)] = append(have[:0], enc...)
	} else {
		m.records[string(key)] = bytes.Clone(enc)
	}
	m.mu.Unlock()
	done.Committed(nil)
}

func (m *memory) Meta(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.metas[name], nil
}

func (m *memory) PutMeta(name string, value []byte, done interface{ Committed(error) }) {
	m.mu.Lock()
	m.metas[name] = bytes.Clone(value)
	m.mu.Unlock()
	done.Committed(nil)
}

const partitions = 4

// table is a node's configurations, by partition.
type table [partitions]atomic.Pointer[ring.Configuration]

func (t *table) Configuration(p ring.Partition) ring.Configuration { return *t[p].Load() }

func (t *table) Adopt(p ring.Partition, c ring.Configuration) bool {
	t[p].Store(&c)
	return true
}

const timeout = 400 * time.Millisecond

var (
	ids     = []ring.NodeID{"a", "b", "c", "d", "e"}
	errDisk = errors.New("no time on disk")
)

// wall is the time in tests: under synctest the clock starts before stamps do.
func wall() time.Time {
	if now := time.Now(); now.Year() > 2025 {
		return now
	}
	return time.Now().AddDate(30, 0, 0)
}

// stamps is a node's fence, which can be made to fail.
type stamps struct {
	*replica.Fence
	fail atomic.Bool
}

func (s *stamps) Next(p ring.Partition, slot uint16) (record.Stamp, error) {
	if s.fail.Load() {
		return 0, errDisk
	}
	return s.Fence.Next(p, slot)
}

func (s *stamps) TryNext(p ring.Partition, slot uint16) (record.Stamp, bool) {
	if s.fail.Load() {
		return 0, false
	}
	return s.Fence.TryNext(p, slot)
}

// node is a real replica and a real coordinator, with a wire to every other node.
type node struct {
	id      ring.NodeID
	disk    *memory
	table   table
	replica *replica.Replica
	stamps  stamps
	*Coordinator
	repairer *repair.Repairer // where there are hints
	wires    []*wire          // by node; to itself too, without a network
	adopted  []ring.Configuration
}

// rig is a cluster in one process: coordinators and replicas are real, what is between is the test's.
type rig struct {
	t     testing.TB
	nodes []*node
	q     ring.Quorum
	conf  ring.Configuration
}

// newRig founds n nodes; the first q.N of them are the replicas of every partition.
func newRig(t testing.TB, n int, q ring.Quorum) *rig {
	r := &rig{t: t, q: q, conf: ring.Configuration{Epoch: 1, Members: ids[:min(q.N, n)]}}
	for i := range n {
		nd := &node{id: ids[i], disk: &memory{records: map[string][]byte{}, metas: map[string][]byte{}}}
		for p := range nd.table {
			nd.table[p].Store(&r.conf)
		}
		fence, err := replica.OpenFence(nd.disk, wall)
		if err != nil {
			t.Fatal(err)
		}
		nd.stamps.Fence = fence
		nd.replica = replica.New(replica.Options{
			Self: nd.id, Storage: nd.disk, Journal: nd.disk, Fence: fence, Configurations: &nd.table,
			EncodeConfiguration: func(ring.Configuration) []byte { return nil },
			Partitions:          partitions, PromiseSlots: 1024, Refused: func(error) bool { return false },
			Wall: wall, Logger: slog.New(slog.DiscardHandler),
		})
		nd.Coordinator = New(Options{
			Slot: uint16(i), Stamps: &nd.stamps, Wall: wall, Timeout: timeout, MaxValue: 1 << 20, StickyKeys: 64, Seed: uint64(i),
			Adopt:  func(_ ring.Partition, c ring.Configuration) { nd.adopted = append(nd.adopted, c) },
			Logger: slog.New(slog.DiscardHandler), Flights: flight.New(flight.Options{Slow: timeout / 20, Rate: 1 << 20}),
		})
		r.nodes = append(r.nodes, nd)
	}
	for i := range r.nodes {
		for k := range r.nodes {
			r.nodes[i].wires = append(r.nodes[i].wires, newWire(r.nodes[k], i == k))
		}
		r.route(i, r.conf)
	}
	return r
}

// adopt has node i's replica adopt conf for all partitions.
func (r *rig) adopt(i int, conf ring.Configuration) {
	for p := range ring.Partition(partitions) {
		call := &message.Call{Completion: ignore{}}
		call.Request = message.Request{Kind: message.Configure, Partition: p, Configuration: conf}
		r.nodes[i].replica.Send(call)
	}
}

// route gives node i routes by conf.
func (r *rig) route(i int, conf ring.Configuration) {
	nd := r.nodes[i]
	nd.SetRoutes(NewRoutes([]ring.Configuration{conf, conf, conf, conf}, r.q, nd.id, func(id ring.NodeID) Replica {
		for k, other := range r.nodes {
			if w := nd.wires[k]; other.id == id && w.local {
				return localWire{w}
			} else if other.id == id {
				return w
			}
		}
		return nil
	}))
}

// bubble runs f under a clock that stands still while anybody works.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		f(t)
		time.Sleep(10 * timeout) // calls without an answer, and idle goroutines, end
	})
}

// do runs one operation at node i.
func (r *rig) do(i int, op record.Op) record.Result {
	s := r.nodes[i].Session()
	defer s.Close()
	res := make([]record.Result, 1)
	begun := time.Now()
	// A bubble's clock, which begins with the year 2000, stands still while anybody works, so what Execute says is exact, whichever way the operation took.
	if took := s.Execute([]record.Op{op}, res); took != time.Since(begun) && begun.Year() == 2000 {
		r.t.Errorf("Execute says that it took %v, and took %v", took, time.Since(begun))
	}
	res[0].Value = bytes.Clone(res[0].Value)
	return res[0]
}

var key = []byte("key")

func get() record.Op             { return record.Op{Kind: record.Get, Key: key} }
func set(value string) record.Op { return op(record.Set, value) }
func incr() record.Op            { return record.Op{Kind: record.Incr, Key: key, Delta: 1} }

func op(kind record.OpKind, value string) record.Op {
	return record.Op{Kind: kind, Key: key, Value: []byte(value)}
}

// want checks an outcome; value is that of Found.
func (r *rig) want(what string, res record.Result, status record.Status, value string) {
	r.t.Helper()
	if res.Status != status || string(res.Value) != value {
		r.t.Errorf("%s: status %d %q %s, want %d %q", what, res.Status, res.Value, res.Detail, status, value)
	}
}

// state is what node i's replica holds of key.
func (r *rig) state(i int) (rec record.Record) {
	enc, found, _ := r.nodes[i].disk.Get(nil, 0, 0, key)
	if found {
		if err := record.Decode(key, enc, &rec); err != nil {
			r.t.Error(err)
		}
	}
	return rec
}

// each applies f to node i's wires to the given nodes.
func (r *rig) each(i int, to []int, f func(*wire)) {
	for _, k := range to {
		f(r.nodes[i].wires[k])
	}
}
