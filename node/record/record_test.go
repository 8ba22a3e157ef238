package record

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

var testKey = []byte("a key")

// samples cover each part of the encoding, present and absent.
func samples() []Record {
	recent := make([]Version, MaxRecent)
	for i := range recent {
		recent[i] = Version(1000 - i)
	}
	b := Ballot{Epoch: 7, Stamp: NewStamp(123456, 3)}
	return []Record{
		{},
		{Ballot: b}, // sealed while never written
		{Ballot: b, Kind: Tombstone, Version: 9, CAS: 9},
		{Ballot: b, Kind: Tombstone, Version: 9, CAS: 8, Recent: recent[:3], Floor: 4},
		{Ballot: b, Kind: Value, Version: 9, CAS: 9},
		{Ballot: b, Kind: Value, Version: 9, CAS: 9, Value: []byte("v"), Flags: 1<<32 - 1, Expiry: 1<<32 - 1},
		{Ballot: b, Kind: Value, Version: 9, CAS: 1, Value: []byte("value\r\n\x00"), Recent: recent, Floor: math.MaxUint64},
	}
}

func equal(a, b *Record) bool {
	return a.Ballot == b.Ballot && a.Version == b.Version && a.CAS == b.CAS && slices.Equal(a.Recent, b.Recent) &&
		a.Floor == b.Floor && a.Flags == b.Flags && a.Expiry == b.Expiry && a.Kind == b.Kind && bytes.Equal(a.Value, b.Value)
}

func TestCodecIsTheIdentity(t *testing.T) {
	dirty := Record{Recent: []Version{1, 2, 3}, Value: []byte("left over"), CAS: 5, Flags: 5}
	for _, r := range samples() {
		prefix := []byte("prefix")
		enc := Append(slices.Clone(prefix), testKey, &r)
		if !bytes.HasPrefix(enc, prefix) {
			t.Fatalf("%+v: Append touched what was there: %q", r, enc)
		}
		enc = enc[len(prefix):]
		if len(enc) != r.Size() || len(enc)-len(r.Value) > Overhead {
			t.Errorf("%+v: %d bytes; Size says %d, Overhead %d", r, len(enc), r.Size(), Overhead)
		}
		if err := Decode(testKey, enc, &dirty); err != nil || !equal(&r, &dirty) {
			t.Errorf("decoded %+v, %v; want %+v", dirty, err, r)
		}
		if b := PeekBallot(enc); b != r.Ballot {
			t.Errorf("%+v: peeked %v", r, b)
		}
	}
}

// One flipped bit, one byte less or more, another key: each must be noticed, wherever it is.
func TestEveryDamageIsCorrupt(t *testing.T) {
	for _, r := range samples() {
		enc := Append(nil, testKey, &r)
		refused := func(what string, key, enc []byte) {
			t.Helper()
			if err := Check(key, enc); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%+v, %s: Check says %v", r, what, err)
			}
			if err := Decode(key, enc, &Record{}); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%+v, %s: Decode says %v", r, what, err)
			}
		}
		for bit := range 8 * len(enc) {
			bad := slices.Clone(enc)
			bad[bit/8] ^= 1 << (bit % 8)
			refused(fmt.Sprintf("bit %d", bit), testKey, bad)
		}
		for n := range len(enc) {
			refused(fmt.Sprintf("%d bytes", n), testKey, enc[:n])
		}
		refused("a byte more", testKey, append(slices.Clone(enc), 0))
		refused("another key", []byte("a kez"), enc)
		refused("no key", nil, enc)
	}
}

// A valid checksum over an impossible header is a fault of this program, and no record either.
func TestImpossibleHeadersAreCorrupt(t *testing.T) {
	seal := func(change func([]byte)) []byte {
		enc := Append(nil, testKey, &Record{Kind: Value, Version: 1, CAS: 1, Value: []byte("v")})
		change(enc)
		Reballot(testKey, enc, Ballot{Epoch: 1}) // sums anew
		return enc
	}
	for what, enc := range map[string][]byte{
		"format":         seal(func(b []byte) { b[0] = 2 }),
		"kind":           seal(func(b []byte) { b[1] = 3 }),
		"unknown bit":    seal(func(b []byte) { b[2] = 2 }),
		"cas missing":    seal(func(b []byte) { b[2] = 1 }),
		"recent missing": seal(func(b []byte) { b[3] = 1 }),
		"too many":       seal(func(b []byte) { b[3] = MaxRecent + 1 }),
		"dead value":     seal(func(b []byte) { b[1] = byte(Tombstone) }),
	} {
		if err := Check(testKey, enc); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestReballotChangesTheBallotOnly(t *testing.T) {
	for _, r := range samples() {
		enc := Append(nil, testKey, &r)
		r.Ballot = Ballot{Epoch: 99, Stamp: 77}
		Reballot(testKey, enc, r.Ballot)
		if want := Append(nil, testKey, &r); !bytes.Equal(enc, want) {
			t.Errorf("%x, want %x", enc, want)
		}
	}
	if b := PeekBallot([]byte("short")); !b.IsZero() {
		t.Errorf("ballot %v of too few bytes", b)
	}
}

func TestLineage(t *testing.T) {
	r := Record{Version: 50, Recent: []Version{40, 30}, Floor: 20}
	for id, want := range map[Version]Folded{
		50: IsFolded, 40: IsFolded, 30: IsFolded,
		60: NotFolded, 45: NotFolded, 25: NotFolded, 21: NotFolded,
		20: MaybeFolded, 1: MaybeFolded,
	} {
		if got := r.Lineage(id); got != want {
			t.Errorf("Lineage(%d) = %d, want %d", id, got, want)
		}
	}
}

func TestSucceed(t *testing.T) {
	many := make([]Version, MaxRecent)
	for i := range many {
		many[i] = Version(100 - i)
	}
	for _, c := range []struct {
		name     string
		r        Record
		keepFrom Version
		recent   []Version
		floor    Version
	}{
		{name: "first", r: Record{}, recent: nil},
		{name: "second", r: Record{Version: 5}, recent: []Version{5}},
		{name: "newest first", r: Record{Version: 5, Recent: []Version{4, 3}}, recent: []Version{5, 4, 3}},
		{name: "old ones go under the floor", r: Record{Version: 5, Recent: []Version{4, 3, 2}}, keepFrom: 4, recent: []Version{5, 4}, floor: 3},
		{name: "all are old", r: Record{Version: 5, Recent: []Version{4}, Floor: 1}, keepFrom: 9, recent: nil, floor: 5},
		{name: "the floor never sinks", r: Record{Version: 5, Floor: 50}, keepFrom: 9, floor: 50},
		{name: "full", r: Record{Version: 101, Recent: many}, recent: append([]Version{101}, many[:MaxRecent-1]...), floor: many[MaxRecent-1]},
		// Versions do not always grow: clocks of coordinators differ.
		{name: "not in order", r: Record{Version: 5, Recent: []Version{9, 2}}, keepFrom: 4, recent: []Version{5, 9}, floor: 2},
	} {
		before := slices.Clone(c.r.Recent)
		shared := c.r.Recent
		c.r.CAS = 77
		c.r.Succeed(200, c.keepFrom)
		if c.r.Version != 200 || c.r.CAS != 77 || !slices.Equal(c.r.Recent, c.recent) || c.r.Floor != c.floor {
			t.Errorf("%s: version %d cas %d recent %v floor %d, want 200 77 %v %d", c.name, c.r.Version, c.r.CAS, c.r.Recent, c.r.Floor, c.recent, c.floor)
		}
		if !slices.Equal(shared, before) {
			t.Errorf("%s: the former lineage, which other records may share, was written to", c.name)
		}
	}
}

// Whatever was folded in is known as folded, or at least not denied, however long ago it was.
func TestNothingFoldedIsEverDenied(t *testing.T) {
	var r Record
	for i := range 10 * MaxRecent {
		r.Succeed(Version(i+1), Version(max(0, i-2*MaxRecent)))
		for id := range i + 1 {
			if r.Lineage(Version(id+1)) == NotFolded {
				t.Fatalf("after %d mutations, %d is denied: %+v", i+1, id+1, r)
			}
		}
		if len(r.Recent) > MaxRecent {
			t.Fatalf("%d recent versions", len(r.Recent))
		}
	}
}

func TestAllocations(t *testing.T) {
	r := samples()[6]
	buf := make([]byte, 0, r.Size())
	enc := Append(nil, testKey, &r)
	into := Record{Recent: make([]Version, 0, MaxRecent)}
	for name, f := range map[string]func(){
		"Append into a sized buffer": func() { Append(buf, testKey, &r) },
		"Check":                      func() { _ = Check(testKey, enc) },
		"Decode":                     func() { _ = Decode(testKey, enc, &into) },
		"PeekBallot":                 func() { PeekBallot(enc) },
		"Lineage":                    func() { r.Lineage(1) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range samples() {
		f.Add(testKey, Append(nil, testKey, &r))
	}
	f.Fuzz(func(t *testing.T, key, enc []byte) {
		// As found: hardly ever a record.
		var r Record
		if err := Decode(key, enc, &r); err == nil {
			spelled := enc[2]&bitCAS == 0 || r.CAS != r.Version // a cas equal to the version need not be told
			if again := Append(nil, key, &r); spelled && !bytes.Equal(again, enc) {
				t.Errorf("%x decodes to %+v, which encodes to %x", enc, r, again)
			}
		} else if !errors.Is(err, ErrCorrupt) {
			t.Errorf("error %v", err)
		}
		// With a good checksum: the header is all that protects.
		if len(enc) < headerLen {
			return
		}
		enc = slices.Clone(enc)
		Reballot(key, enc, PeekBallot(enc))
		if err := Decode(key, enc, &r); err == nil && (len(r.Recent) > MaxRecent || len(r.Value)+Overhead < len(enc)) {
			t.Errorf("%x decodes to %+v", enc, r)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := Record{Kind: Value, Version: 1, CAS: 1, Value: []byte(strings.Repeat("v", size))}
			buf := make([]byte, 0, r.Size())
			b.ReportAllocs()
			for b.Loop() {
				Append(buf, testKey, &r)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	enc := Append(nil, testKey, &Record{Kind: Value, Version: 1, CAS: 1, Value: make([]byte, 100)})
	var r Record
	b.ReportAllocs()
	for b.Loop() {
		_ = Decode(testKey, enc, &r)
	}
}
