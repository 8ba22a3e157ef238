package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// disk is a Storage and Journal whose commits the test lets through, or that commits within Put.
type disk struct {
	mu      sync.Mutex
	records map[string][]byte
	metas   map[string][]byte
	staged  []staged
	order   []string // of all that was ever staged
	hold    bool     // commits wait for release
	refuse  error    // what Put and PutMeta answer at once
	cold    bool     // Peek knows nothing
	broken  error    // what reads answer
}

type staged struct {
	name string
	meta bool
	gone bool
	data []byte
	done interface{ Committed(error) }
}

var (
	errFull = errors.New("full") // certainly nothing was done
	errDisk = errors.New("the disk broke")
)

func newDisk() *disk { return &disk{records: map[string][]byte{}, metas: map[string][]byte{}} }

func (d *disk) Peek(dst []byte, p ring.Partition, hash uint64, key []byte) ([]byte, bool, bool, error) {
	if d.cold {
		return dst, false, false, nil
	}
	enc, found, err := d.Get(dst, p, hash, key)
	return enc, found, err == nil, err
}

func (d *disk) PeekBallot(_ ring.Partition, _ uint64, key []byte) (record.Ballot, bool, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	enc, found := d.records[string(key)]
	return record.PeekBallot(enc), found, !d.cold && d.broken == nil
}

func (d *disk) Get(dst []byte, _ ring.Partition, _ uint64, key []byte) ([]byte, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	enc, found := d.records[string(key)]
	return append(dst, enc...), found, d.broken
}

func (d *disk) Put(_ ring.Partition, _ uint64, key, enc []byte, done interface{ Committed(error) }) {
	d.stage(staged{name: string(key), data: bytes.Clone(enc), done: done})
}

func (d *disk) Meta(name string) ([]byte, error) { return d.metas[name], d.broken }

func (d *disk) PutMeta(name string, value []byte, done interface{ Committed(error) }) {
	d.stage(staged{name: name, meta: true, data: bytes.Clone(value), done: done})
}

func (d *disk) stage(s staged) {
	d.mu.Lock()
	err := d.refuse
	if err == nil {
		d.order = append(d.order, s.name)
		d.staged = append(d.staged, s)
	}
	hold := d.hold
	d.mu.Unlock()
	switch {
	case err != nil:
		s.done.Committed(err)
	case !hold:
		d.release(nil)
	}
}

// release commits all that is staged, or fails it.
func (d *disk) release(err error) {
	d.mu.Lock()
	batch := d.staged
	d.staged = nil
	for _, s := range batch {
		if err != nil {
			continue
		}
		switch {
		case s.meta:
			d.metas[s.name] = s.data
		case s.gone:
			delete(d.records, s.name)
		default:
			d.records[s.name] = s.data
		}
	}
	d.mu.Unlock()
	for _, s := range batch {
		s.done.Committed(err)
	}
}

// table is the configurations of one partition.
type table struct{ conf ring.Configuration }

func (t *table) Configuration(ring.Partition) ring.Configuration { return t.conf }

func (t *table) Adopt(_ ring.Partition, c ring.Configuration) bool {
	t.conf = c
	return true
}

const self = ring.NodeID("self")

// begun is when the tests' clock starts.
var begun = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// rig is one replica over a disk that the test controls.
type rig struct {
	t     *testing.T
	disk  *disk
	table *table
	fence *Fence
	now   time.Time
	*Replica
}

// newRig opens a replica of epoch 1 on what d holds; its first reservation is made and durable.
func newRig(t *testing.T, d *disk) *rig {
	r := &rig{t: t, disk: d, now: begun, table: &table{ring.Configuration{Epoch: 1, Members: []ring.NodeID{self, "other"}}}}
	var err error
	if r.fence, err = OpenFence(d, func() time.Time { return r.now }); err != nil {
		t.Fatal(err)
	}
	r.Replica = New(Options{
		Self: self, Storage: d, Journal: d, Fence: r.fence, Configurations: r.table,
		EncodeConfiguration: func(c ring.Configuration) []byte { return fmt.Append(nil, c) },
		Partitions:          4, PromiseSlots: 256,
		Refused: func(err error) bool { return errors.Is(err, errFull) },
		Wall:    func() time.Time { return r.now }, Logger: slog.New(slog.DiscardHandler),
	})
	if !d.hold && d.refuse == nil {
		r.fence.Covers(0)
		d.order = nil
	}
	return r
}

// ballot of epoch 1, n ticks from the start of the test's clock.
func ballot(n int) record.Ballot { return ballotIn(1, n) }

func ballotIn(epoch uint32, n int) record.Ballot {
	return record.Ballot{Epoch: epoch, Stamp: record.NewStamp(uint64(int(record.Ticks(begun))+n), 2)}
}

var key = []byte("key")

// encoded is a record of key as of ballot b.
func encoded(b record.Ballot, value string) []byte {
	return record.Append(nil, key, &record.Record{Ballot: b, Kind: record.Value, Version: 1, CAS: 1, Value: []byte(value)})
}

// asked is a call, its answer, and how often it was answered.
type asked struct {
	message.Call
	answers int
}

// Done implements message.Completion; the reply's slices are good only now.
func (a *asked) Done(c *message.Call) {
	a.answers++
	a.Reply = c.Reply
	a.Reply.Record, a.Reply.Items = bytes.Clone(c.Reply.Record), bytes.Clone(c.Reply.Items)
}

// ask sends q with what all requests here share; the call and the request's slices are spoilt afterwards,
// as a link's would be.
func (r *rig) ask(q message.Request) *asked {
	if q.Key == nil && q.Kind != message.ReadMany {
		q.Key = key
	}
	if q.Epoch == 0 {
		q.Epoch = 1
	}
	q.Key, q.Record, q.Items = bytes.Clone(q.Key), bytes.Clone(q.Record), bytes.Clone(q.Items)
	q.Hash = ring.Hash(q.Key)
	a := &asked{Call: message.Call{Request: q}}
	a.Completion = a
	// A call that was used before, by way of a link, may hold slices of the link's memory.
	link := bytes.Repeat([]byte{0xdb}, 4096)
	sent := a.Call
	sent.Reply = message.Reply{Record: link[:100], Items: link[100:200]}
	r.t.Cleanup(func() {
		if bytes.Count(link, []byte{0xdb}) != len(link) {
			r.t.Errorf("kind %d: the reply was written over that of the call's last use", q.Kind)
		}
	})
	r.Send(&sent)
	sent = message.Call{}
	for _, b := range [][]byte{q.Key, q.Record, q.Items} {
		for i := range b {
			b[i] = 0xff
		}
	}
	r.settle()
	return a
}

// settle waits until nobody reads the disk, or clears a partition.
func (r *rig) settle() {
	d := &r.Replica.disk
	for {
		d.mu.Lock()
		n := d.workers
		d.mu.Unlock()
		r.confMu.Lock()
		if r.disk != nil && !r.disk.hold {
			n += len(r.cleans.running)
		}
		r.confMu.Unlock()
		if n == 0 {
			return
		}
		runtime.Gosched()
	}
}

func (r *rig) read() *asked { return r.ask(message.Request{Kind: message.Read}) }

func (r *rig) prepare(b record.Ballot) *asked {
	return r.ask(message.Request{Kind: message.Prepare, Ballot: b})
}

func (r *rig) accept(b, next record.Ballot, value string) *asked {
	return r.ask(message.Request{Kind: message.Accept, Record: encoded(b, value), Next: next})
}

// want checks that a was answered once, so.
func (r *rig) want(what string, a *asked, status message.Status, b record.Ballot, rec []byte) {
	r.t.Helper()
	if a.answers != 1 {
		r.t.Errorf("%s: answered %d times", what, a.answers)
		return
	}
	if a.Reply.Status != status || a.Reply.Ballot != b || !bytes.Equal(a.Reply.Record, rec) {
		r.t.Errorf("%s: %v %v %q, want %v %v %q", what, a.Reply.Status, a.Reply.Ballot, a.Reply.Record, status, b, rec)
	}
}

// waits checks that a is not answered yet.
func (r *rig) waits(what string, a *asked) {
	r.t.Helper()
	if a.answers != 0 {
		r.t.Errorf("%s: answered %v", what, a.Reply.Status)
	}
}

func (d *disk) setFence(ticks uint64) *disk {
	d.metas[fenceName] = binary.LittleEndian.AppendUint64(nil, ticks)
	return d
}

func (d *disk) stagedBefore(first, second string) bool {
	i, j := slices.Index(d.order, first), slices.Index(d.order, second)
	return i >= 0 && j >= 0 && i < j
}
