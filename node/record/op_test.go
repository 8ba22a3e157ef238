package record

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

const (
	now   = 1000 // Unix seconds
	newID = 99
	limit = 100 // bytes of a value
)

func live(v string) Record {
	return Record{Kind: Value, Value: []byte(v), Flags: 7, Version: 5, CAS: 5}
}

func expired(v string) Record {
	r := live(v)
	r.Expiry = now
	return r
}

// The rules are memcached's: protocol.txt, and where that is silent what memcached 1.6.18 answers.
func TestApply(t *testing.T) {
	dead := Record{Kind: Tombstone, Version: 5, CAS: 5}
	big := live(strings.Repeat("b", limit))
	set := func(v string) Record {
		return Record{Kind: Value, Value: []byte(v), Flags: 3, Expiry: 2000, CAS: newID}
	}
	keeps := func(v string) Record { return Record{Kind: Value, Value: []byte(v), Flags: 7, CAS: newID} } // of live("…")
	gone := Record{Kind: Tombstone, CAS: newID}
	op := func(k OpKind, v string) Op { return Op{Kind: k, Value: []byte(v), Flags: 3, Expiry: 2000} }
	cas := func(token Version) Op {
		o := op(CompareAndSwap, "new")
		o.CAS = token
		return o
	}
	touched := live("old")
	touched.Expiry = 2000
	res := func(s Status) Result { return Result{Status: s} }
	from := func(k OpKind, version uint64) Op {
		o := op(k, "new")
		o.Delta = version
		return o
	}
	purged := set("new")
	purged.Floor = 50
	heir, vague, now5 := live("heir"), live("vague"), live("written now")
	heir.Recent, vague.Floor, now5.CAS = []Version{9}, 9, newID
	for _, c := range []struct {
		name  string
		r     Record
		op    Op
		want  Result
		after *Record // nil: unchanged
	}{
		{"get absent", Record{}, op(Get, ""), res(NotFound), nil},
		{"get deleted", dead, op(Get, ""), res(NotFound), nil},
		{"get expired", expired("old"), op(Get, ""), res(NotFound), nil},
		{"get", live("old"), op(Get, ""), Result{Status: Found, Flags: 7, CAS: 5, Value: []byte("old")}, nil},
		{"set absent", Record{}, op(Set, "new"), res(Stored), ptr(set("new"))},
		{"set", live("old"), op(Set, "new"), res(Stored), ptr(set("new"))},
		{"set empty", live("old"), op(Set, ""), res(Stored), ptr(set(""))},
		{"add absent", Record{}, op(Add, "new"), res(Stored), ptr(set("new"))},
		{"add deleted", dead, op(Add, "new"), res(Stored), ptr(set("new"))},
		{"add expired", expired("old"), op(Add, "new"), res(Stored), ptr(set("new"))},
		{"add", live("old"), op(Add, "new"), res(NotStored), nil},
		{"replace", live("old"), op(Replace, "new"), res(Stored), ptr(set("new"))},
		{"replace absent", Record{}, op(Replace, "new"), res(NotStored), nil},
		{"replace expired", expired("old"), op(Replace, "new"), res(NotStored), nil},
		{"append", live("old"), op(AppendTo, "new"), res(Stored), ptr(keeps("oldnew"))},
		{"append nothing", live("old"), op(AppendTo, ""), res(Stored), ptr(keeps("old"))},
		{"append absent", Record{}, op(AppendTo, "new"), res(NotStored), nil},
		{"append deleted", dead, op(AppendTo, "new"), res(NotStored), nil},
		{"append too much", big, op(AppendTo, "x"), res(TooLarge), nil},
		{"prepend", live("old"), op(Prepend, "new"), res(Stored), ptr(keeps("newold"))},
		{"prepend absent", Record{}, op(Prepend, "new"), res(NotStored), nil},
		{"prepend too much", big, op(Prepend, "x"), res(TooLarge), nil},
		{"cas", live("old"), cas(5), res(Stored), ptr(set("new"))},
		{"cas of another token", live("old"), cas(6), res(Exists), nil},
		{"cas absent", Record{}, cas(0), res(NotFound), nil},
		{"cas deleted", dead, cas(5), res(NotFound), nil},
		{"cas expired", expired("old"), cas(5), res(NotFound), nil},
		{"delete", live("old"), op(Delete, ""), res(Deleted), &gone},
		{"delete absent", Record{}, op(Delete, ""), res(NotFound), nil},
		{"delete deleted", dead, op(Delete, ""), res(NotFound), nil},
		{"delete expired", expired("old"), op(Delete, ""), res(NotFound), nil},
		// touch leaves the cas token alone, as memcached does.
		{"touch", live("old"), op(Touch, ""), res(Touched), &touched},
		{"touch with the same expiry", touched, op(Touch, ""), res(Touched), nil},
		{"touch absent", Record{}, op(Touch, ""), res(NotFound), nil},
		{"touch expired", expired("old"), op(Touch, ""), res(NotFound), nil},
		{"gat", live("old"), op(GetAndTouch, ""), Result{Status: Found, Flags: 7, CAS: 5, Value: []byte("old")}, &touched},
		{"gat absent", Record{}, op(GetAndTouch, ""), res(NotFound), nil},
		{"incr absent", Record{}, Op{Kind: Incr, Delta: 1}, res(NotFound), nil},
		{"decr expired", expired("5"), Op{Kind: Decr, Delta: 1}, res(NotFound), nil},
		{"restore absent", Record{}, from(Restore, 9), res(Stored), ptr(set("new"))},
		{"restore what is not there, behind a purge", Record{Floor: 50}, from(Restore, 9), res(Stored), ptr(purged)},
		{"restore over an older value", live("old"), from(Restore, 9), res(Stored), ptr(set("new"))},
		{"restore over an older tombstone", dead, from(Restore, 9), res(Stored), ptr(set("new"))},
		{"restore over a newer value", live("newer"), from(Restore, 4), res(NotStored), nil},
		{"restore over a newer tombstone", dead, from(Restore, 4), res(NotStored), nil},
		{"restore over itself", live("old"), from(Restore, 5), res(NotStored), nil},
		{"restore over what came of it", heir, from(Restore, 9), res(NotStored), nil},
		{"restore over what may have come of it", vague, from(Restore, 9), res(NotStored), nil},
		{"restore over what the same round wrote", now5, from(Restore, 9), res(NotStored), nil},
		{"bury an older value", live("old"), from(Bury, 9), res(Stored), &gone},
		{"bury a newer value", live("newer"), from(Bury, 4), res(NotStored), nil},
		{"bury nothing", Record{}, from(Bury, 9), res(NotStored), nil},
		{"bury what is dead", dead, from(Bury, 9), res(NotStored), nil},
	} {
		checkApply(t, c.name, c.r, c.op, c.want, c.after)
	}
}

func ptr(r Record) *Record { return &r }

func checkApply(t *testing.T, name string, r Record, op Op, want Result, after *Record) {
	t.Helper()
	before, value := r, slices.Clone(r.Value)
	backing, arg := r.Value, slices.Clone(op.Value)
	got, changed := op.Apply(&r, newID, now, limit)
	if got.Status != want.Status || got.Flags != want.Flags || got.CAS != want.CAS || got.Number != want.Number || !bytes.Equal(got.Value, want.Value) {
		t.Errorf("%s: result %+v, want %+v", name, got, want)
	}
	if changed != (after != nil) {
		t.Errorf("%s: changed=%v", name, changed)
	}
	expect := before
	if after != nil {
		expect = *after
		expect.Version = before.Version // the caller's to move
	}
	if !equal(&r, &expect) {
		t.Errorf("%s: left %+v, want %+v", name, r, expect)
	}
	if !bytes.Equal(backing, value) || !bytes.Equal(op.Value, arg) {
		t.Errorf("%s: wrote to the former value or to the operation's", name)
	}
}

// Counting as memcached 1.6.18 does, asked: see also node/memcache/DESIGN.md for deviations.
func TestCount(t *testing.T) {
	const most = "18446744073709551615"
	for _, c := range []struct {
		value  string
		kind   OpKind
		delta  uint64
		number uint64
		after  string // "": non-numeric
	}{
		{"5", Incr, 1, 6, "6"},
		{"9", Incr, 1, 10, "10"},
		{"0", Incr, 0, 0, "0"},
		{most, Incr, 1, 0, "0                   "}, // wraps; keeps its length
		{most, Incr, 2, 1, "1                   "},
		{most, Decr, 0, 18446744073709551615, most},
		{"10", Decr, 1, 9, "9 "},
		{"5", Decr, 9, 0, "0"}, // stops at 0
		{"100", Decr, 99, 1, "1  "},
		{"1  ", Incr, 99, 100, "100"},
		{" 12", Incr, 1, 13, "13 "},
		{"12\n", Incr, 1, 13, "13 "},
		{"\v\f12\t\r\n", Incr, 1, 13, "13     "},
		{"007", Incr, 1, 8, "8  "},
		{most + "     ", Incr, 1, 0, "0                        "}, // longer than 20 bytes
		{"7" + strings.Repeat(" ", 60), Incr, 1, 8, "8" + strings.Repeat(" ", 60)},
		{strings.Repeat("0", 40) + "7", Incr, 1, 8, "8" + strings.Repeat(" ", 40)},
		{"18446744073709551616", Incr, 1, 0, ""}, // 2^64
		{"99999999999999999999", Incr, 1, 0, ""},
		{"184467440737095516150", Incr, 1, 0, ""},
		{"", Incr, 1, 0, ""},
		{"  ", Incr, 1, 0, ""},
		{"-1", Incr, 1, 0, ""},
		{"+1", Incr, 1, 0, ""},
		{"1.5", Incr, 1, 0, ""},
		{"0x10", Incr, 1, 0, ""},
		{"1_0", Incr, 1, 0, ""},
		{"12 a", Incr, 1, 0, ""},
		{"1 2", Incr, 1, 0, ""},
		{"a", Decr, 1, 0, ""},
		{"\u00a05", Incr, 1, 0, ""}, // white space to Unicode, not to C
		{"5\x00", Incr, 1, 0, ""},
	} {
		op := Op{Kind: c.kind, Delta: c.delta}
		if c.after == "" {
			checkApply(t, "count "+c.value, live(c.value), op, Result{Status: NotNumeric}, nil)
			continue
		}
		after := live(c.after)
		after.CAS = newID
		checkApply(t, "count "+c.value, live(c.value), op, Result{Status: Counted, Number: c.number}, &after)
	}
}

func TestLive(t *testing.T) {
	for _, c := range []struct {
		r    Record
		want bool
	}{
		{Record{}, false},
		{Record{Kind: Tombstone}, false},
		{Record{Kind: Value}, true},
		{Record{Kind: Value, Expiry: now - 1}, false},
		{Record{Kind: Value, Expiry: now}, false}, // memcached: expired once the clock reads exptime
		{Record{Kind: Value, Expiry: now + 1}, true},
	} {
		if got := c.r.Live(now); got != c.want {
			t.Errorf("%+v: live %v", c.r, got)
		}
	}
}

func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	for k := range numOpKinds {
		if !k.Valid() || k.String() == "" || seen[k.String()] {
			t.Errorf("kind %d: %q", k, k)
		}
		seen[k.String()] = true
		if op := (Op{Kind: k}); op.Mutates() != (k != Get) {
			t.Errorf("%v: mutates %v", k, op.Mutates())
		}
	}
	if numOpKinds.Valid() || numOpKinds.String() != "op(14)" || numStatus.Valid() {
		t.Error("kinds beyond the last are valid")
	}
}
