package message

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"kai/node/record"
	"kai/node/ring"
)

const testMaxFrame = 1 << 20

func randBytes(r *rand.Rand, min, max int) []byte {
	b := make([]byte, min+r.IntN(max-min+1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func randBallot(r *rand.Rand) record.Ballot {
	if r.IntN(3) == 0 {
		return record.Ballot{}
	}
	return record.Ballot{Epoch: r.Uint32(), Stamp: record.Stamp(r.Uint64())}
}

func randRecord(r *rand.Rand, key []byte) []byte {
	rec := record.Record{Ballot: randBallot(r), Version: record.Version(r.Uint64()), CAS: record.Version(r.Uint64()), Kind: record.Kind(r.IntN(3))}
	for range r.IntN(4) {
		rec.Recent = append(rec.Recent, record.Version(r.Uint64()))
	}
	if rec.Kind == record.Value {
		rec.Value = randBytes(r, 0, 300)
	}
	return record.Append(nil, key, &rec)
}

func randConfiguration(r *rand.Rand) (c ring.Configuration) {
	if r.IntN(2) == 0 {
		return c
	}
	c.Epoch = r.Uint32()
	for range r.IntN(ring.MaxReplicas + 1) {
		c.Members = append(c.Members, ring.NodeID(randBytes(r, 0, MaxNodeID)))
	}
	for range r.IntN(3) {
		c.Next = append(c.Next, ring.NodeID(randBytes(r, 1, 16)))
	}
	return c
}

func randRequest(r *rand.Rand) *Request {
	q := &Request{
		Kind: Kind(1 + r.IntN(int(numKinds)-1)), Digest: r.IntN(2) == 0,
		Partition: ring.Partition(r.Uint32()), Epoch: r.Uint32(),
		Key: randBytes(r, 1, record.MaxInternalKey), Ballot: randBallot(r), Next: randBallot(r),
		Configuration: randConfiguration(r),
		Timeout:       time.Duration(r.Uint32()) * time.Millisecond,
	}
	if r.IntN(2) == 0 {
		copy(q.Trace[:], randBytes(r, TraceLen, TraceLen))
	}
	q.Hash = ring.Hash(q.Key)
	if q.Kind == Accept || r.IntN(3) == 0 {
		q.Record = randRecord(r, q.Key)
	}
	if q.Kind == Transfer && r.IntN(2) == 0 {
		q.Items = randBytes(r, len(LeafSet{}), len(LeafSet{}))
	}
	if q.Kind == Purge {
		q.Items = AppendDead(nil, []byte("key"), record.Ballot{Epoch: 1, Stamp: 2})
	}
	if q.Kind == Sums && r.IntN(2) == 0 {
		q.Items = make([]byte, 8)
	}
	if q.Kind == Configurations || q.Kind == Digests {
		q.Items = randBytes(r, 4, 64)
	}
	if q.Kind == ReadMany || q.Kind == Hints {
		for range 1 + r.IntN(4) {
			q.Items = AppendItem(q.Items, randItem(r))
		}
	}
	if q.Kind == Mutate {
		q.Op = record.Op{Kind: record.OpKind(r.IntN(14)), Key: q.Key, Value: randBytes(r, 1, 300),
			Flags: r.Uint32(), Expiry: r.Uint32(), CAS: record.Version(r.Uint64()), Delta: r.Uint64()}
	}
	return q
}

func randItem(r *rand.Rand) Item {
	return Item{Epoch: r.Uint32(), Digest: r.IntN(2) == 0, Key: randBytes(r, 1, record.MaxInternalKey)}
}

func randAnswer(r *rand.Rand) Answer {
	a := Answer{Status: Status(1 + r.IntN(int(numStatus)-1))}
	if a.Status == OK {
		a.Ballot, a.Record = randBallot(r), randBytes(r, 0, 300)
	}
	return a
}

func randReply(r *rand.Rand, key []byte) *Reply {
	p := &Reply{Status: Status(1 + r.IntN(int(numStatus)-1)), Ballot: randBallot(r), Configuration: randConfiguration(r),
		Timing: Timing{r.Uint32(), r.Uint32()}}
	if r.IntN(2) == 0 {
		p.Record = randRecord(r, key)
	}
	if r.IntN(3) == 0 {
		p.Items = AppendAnswer(nil, randAnswer(r))
	}
	if r.IntN(2) == 0 {
		p.Result = record.Result{Status: record.Status(r.IntN(12)), Flags: r.Uint32(), CAS: record.Version(r.Uint64()),
			Number: r.Uint64(), Value: randBytes(r, 1, 300), Detail: string(randBytes(r, 0, MaxDetail))}
	}
	return p
}

func TestIdentity(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		q, id := randRequest(r), r.Uint64()
		frame := AppendRequest([]byte("before"), id, q)[6:]
		var got Request
		gotID, err := ParseRequest(frame, &got)
		if err != nil || gotID != id || !reflect.DeepEqual(*q, got) {
			t.Fatalf("seed %d: id %d, %v\nsent %+v\ngot  %+v", seed, gotID, err, *q, got)
		}
		if n, err := FrameSize(frame, testMaxFrame); n != len(frame) || err != nil {
			t.Fatalf("FrameSize = %d, %v, want %d", n, err, len(frame))
		}
		p := randReply(r, q.Key)
		frame = AppendReply(frame[:0], id, p)
		var rep Reply
		gotID, err = ParseReply(frame, q.Key, &rep)
		if err != nil || gotID != id || !reflect.DeepEqual(*p, rep) {
			t.Fatalf("seed %d: id %d, %v\nsent %+v\ngot  %+v", seed, gotID, err, *p, rep)
		}
	}
}

func TestItems(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		items, answers := make([]Item, r.IntN(5)), make([]Answer, r.IntN(5))
		var a, b []byte
		for i := range items {
			items[i] = randItem(r)
			a = AppendItem(a, items[i])
		}
		for i := range answers {
			answers[i] = randAnswer(r)
			b = AppendAnswer(b, answers[i])
		}
		for _, want := range items {
			got, rest, ok := NextItem(a)
			if !ok || !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d: %+v, want %+v", seed, got, want)
			}
			for n := range len(a) - len(rest) {
				if _, _, ok := NextItem(a[:n]); ok {
					t.Fatal("an item cut short is whole")
				}
			}
			a = rest
		}
		for _, want := range answers {
			got, rest, ok := NextAnswer(b)
			if !ok || got.Status != want.Status || got.Ballot != want.Ballot || !bytes.Equal(got.Record, want.Record) {
				t.Fatalf("seed %d: %+v, want %+v", seed, got, want)
			}
			for n := range len(b) - len(rest) {
				if _, _, ok := NextAnswer(b[:n]); ok {
					t.Fatal("an answer cut short is whole")
				}
			}
			b = rest
		}
		if len(a) != 0 || len(b) != 0 {
			t.Fatal("something is left")
		}
	}
	full := AppendAnswer(make([]byte, maxAnswers-99), Answer{Status: OK, Record: make([]byte, 100)})
	if a, _, ok := NextAnswer(full[maxAnswers-99:]); !ok || a.Status != Busy {
		t.Errorf("a value too many: %+v %v", a, ok)
	}
	for name, b := range map[string][]byte{"flags": {2, 0, 0, 0, 0, 1, 'k'}, "no key": {0, 0, 0, 0, 0, 0}} {
		if _, _, ok := NextItem(b); ok {
			t.Error(name)
		}
	}
	if _, _, ok := NextAnswer([]byte{byte(numStatus)}); ok {
		t.Error("a status of a later build")
	}
}

func TestEveryDamageIsNoticed(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	q := randRequest(r)
	frame := AppendRequest(nil, 9, q)
	for i := range frame {
		for bit := range 8 {
			bad := bytes.Clone(frame)
			bad[i] ^= 1 << bit
			if _, err := ParseRequest(bad, new(Request)); !errors.Is(err, ErrDamaged) {
				t.Fatalf("byte %d bit %d: %v", i, bit, err)
			}
		}
	}
	for n := range frame {
		if _, err := ParseRequest(frame[:n], new(Request)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("first %d bytes: %v", n, err)
		}
	}
}

func TestDamagedRecordInAWholeFrame(t *testing.T) {
	key := []byte("k")
	enc := record.Append(nil, key, &record.Record{Kind: record.Value, Value: []byte("v")})
	other := []byte("another")
	q := &Request{Kind: Accept, Key: other, Record: enc}
	id, err := ParseRequest(AppendRequest(nil, 5, q), new(Request))
	if id != 5 || !errors.Is(err, ErrInvalid) || !errors.Is(err, record.ErrCorrupt) {
		t.Errorf("accept of another key's record: %d, %v", id, err)
	}
	rep := Reply{}
	frame := AppendReply(nil, 6, &Reply{Status: OK, Record: enc, Ballot: record.Ballot{Epoch: 1}, Timing: Timing{1, 2}})
	id, err = ParseReply(frame, other, &rep)
	if want := (Reply{Status: Corrupt, Timing: Timing{1, 2}}); id != 6 || err != nil || !reflect.DeepEqual(rep, want) {
		t.Errorf("reply with another key's record: %d, %v, %+v", id, err, rep)
	}
}

func TestInvalidRequests(t *testing.T) {
	long := make([]ring.NodeID, ring.MaxReplicas+1)
	for name, q := range map[string]*Request{
		"kind 0":       {Kind: 0, Key: []byte("k")},
		"kind 7":       {Kind: 7, Key: []byte("k")},
		"no key":       {Kind: Read},
		"long key":     {Kind: Read, Key: make([]byte, record.MaxInternalKey+1)},
		"no record":    {Kind: Accept, Key: []byte("k")},
		"operation":    {Kind: Mutate, Key: []byte("k"), Op: record.Op{Kind: 99}},
		"many members": {Kind: Configure, Configuration: ring.Configuration{Members: long}},
		"long id":      {Kind: Configure, Configuration: ring.Configuration{Next: []ring.NodeID{ring.NodeID(strings.Repeat("x", 65))}}},
	} {
		if err := q.Check(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: Check = %v", name, err)
		}
		if id, err := ParseRequest(AppendRequest(nil, 3, q), new(Request)); id != 3 || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: ParseRequest = %d, %v", name, id, err)
		}
	}
	mutate := open(nil, Version, uint8(Mutate), 0, 1)
	mutate = append(append(mutate, make([]byte, 12)...), 1, 'k')
	if _, err := ParseRequest(seal(mutate, 0), new(Request)); !errors.Is(err, ErrInvalid) {
		t.Errorf("mutate without op: %v", err)
	}
}

func TestFrameSize(t *testing.T) {
	for _, c := range []struct {
		in   []byte
		want int
		bad  bool
	}{
		{nil, 0, false}, {[]byte{1, 0, 0}, 0, false},
		{[]byte{15, 0, 0, 0}, 0, true}, {[]byte{16, 0, 0, 0}, 20, false},
		{[]byte{96, 0, 0, 0}, 100, false}, {[]byte{97, 0, 0, 0}, 0, true}, {[]byte{255, 255, 255, 255}, 0, true},
	} {
		n, err := FrameSize(c.in, 100)
		if n != c.want || (err != nil) != c.bad || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("FrameSize(%v) = %d, %v", c.in, n, err)
		}
	}
}

func TestMillis(t *testing.T) {
	for d, want := range map[time.Duration]uint32{-1: 0, 0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, 1 << 62: 1<<32 - 1} {
		if got := millis(d); got != want {
			t.Errorf("millis(%v) = %d, want %d", d, got, want)
		}
	}
}

// TestMaxFrame builds the largest messages there can be.
func TestMaxFrame(t *testing.T) {
	id := ring.NodeID(strings.Repeat("n", MaxNodeID))
	conf := ring.Configuration{Epoch: 1}
	for range ring.MaxReplicas {
		conf.Members, conf.Next = append(conf.Members, id), append(conf.Next, id)
	}
	rec := record.Record{Version: 1, CAS: 2, Recent: make([]record.Version, record.MaxRecent), Kind: record.Value, Value: make([]byte, 1000)}
	key := make([]byte, record.MaxInternalKey)
	q := &Request{Kind: Mutate, Key: key, Trace: [TraceLen]byte{1}, Ballot: record.Ballot{Epoch: 1}, Next: record.Ballot{Epoch: 1},
		Configuration: conf, Record: record.Append(nil, key, &rec)}
	p := &Reply{Status: OK, Ballot: q.Ballot, Configuration: conf, Record: q.Record,
		Result: record.Result{Status: record.Found, Detail: strings.Repeat("d", MaxDetail)}}
	for name, n := range map[string]int{"request": len(AppendRequest(nil, 0, q)), "reply": len(AppendReply(nil, 0, p))} {
		if n > MaxFrame(1000) {
			t.Errorf("largest %s: %d bytes, MaxFrame says %d", name, n, MaxFrame(1000))
		}
	}
}

func TestNoAllocations(t *testing.T) {
	key := []byte("a key of thirty bytes, or so...")
	enc := record.Append(nil, key, &record.Record{Kind: record.Value, Value: make([]byte, 100)})
	buf := make([]byte, 0, 4096)
	var q Request
	var p Reply
	for name, in := range map[string]*Request{
		"read":    {Kind: Read, Key: key, Timeout: time.Second, Trace: [TraceLen]byte{1}},
		"prepare": {Kind: Prepare, Key: key, Ballot: record.Ballot{Epoch: 1, Stamp: 2}},
		"accept":  {Kind: Accept, Key: key, Ballot: record.Ballot{Epoch: 1, Stamp: 2}, Next: record.Ballot{Epoch: 1, Stamp: 3}, Record: enc},
	} {
		n := testing.AllocsPerRun(100, func() {
			if _, err := ParseRequest(AppendRequest(buf, 1, in), &q); err != nil {
				t.Fatal(err)
			}
			if _, err := ParseReply(AppendReply(buf, 1, &Reply{Status: OK, Ballot: in.Ballot, Record: enc}), key, &p); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
