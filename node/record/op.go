package record

import (
	"bytes"
	"math"
	"strconv"
)

// OpKind names a memcache command as it acts on one key.
type OpKind uint8

const (
	Get OpKind = iota
	Set
	Add
	Replace
	AppendTo
	Prepend
	CompareAndSwap
	Incr
	Decr
	Delete
	Touch
	GetAndTouch
	// Restore brings a value of a snapshot back, Delta being its version: it is Stored unless what is there is newer, or came of it.
	Restore
	// Bury is Restore of a tombstone: what it had deleted is deleted again.
	Bury
	numOpKinds
)

var opNames = [numOpKinds]string{"get", "set", "add", "replace", "append", "prepend", "cas", "incr", "decr", "delete", "touch", "gat", "restore", "bury"}

func (k OpKind) String() string {
	if k < numOpKinds {
		return opNames[k]
	}
	return "op(" + strconv.Itoa(int(k)) + ")"
}

// Valid reports a kind this build knows.
func (k OpKind) Valid() bool { return k < numOpKinds }

// Op is one memcache command on one key. Key and Value belong to the caller.
type Op struct {
	Kind  OpKind
	Key   []byte
	Value []byte
	Flags uint32
	// Expiry is absolute, in Unix seconds; 0 means never.
	Expiry uint32
	// CAS is the token of cas.
	CAS Version
	// Delta is the amount of incr and decr, the version of restore and bury.
	Delta uint64
}

// Mutates reports whether the operation can change a record.
func (op *Op) Mutates() bool { return op.Kind != Get }

// Status is the outcome of an operation: a closed set, also on the wire between nodes.
type Status uint8

const (
	// NoStatus is the zero Status: no outcome yet.
	NoStatus Status = iota
	// Found: Value, Flags and CAS are set (get, gat).
	Found
	NotFound
	Stored
	NotStored
	Exists
	Deleted
	Touched
	// Counted: Number holds the new value (incr, decr).
	Counted
	// NotNumeric: incr or decr on a value that is not a decimal 64-bit number.
	NotNumeric
	// TooLarge: append or prepend would exceed the largest value; nothing was changed.
	TooLarge
	// Unavailable: definitely not applied; Detail says why.
	Unavailable
	// Unknown: the deadline passed after a proposal went out; it may or may not be applied.
	Unknown
	// Corrupt: a replica's stored state failed its checksum and no quorum was left without it.
	Corrupt
	numStatus
)

var statusNames = [numStatus]string{"none", "found", "not_found", "stored", "not_stored", "exists", "deleted", "touched", "counted", "not_numeric", "too_large",
	"unavailable", "unknown", "corrupt"}

func (s Status) String() string {
	if s < numStatus {
		return statusNames[s]
	}
	return "invalid"
}

// Valid reports a status this build knows.
func (s Status) Valid() bool { return s < numStatus }

// Result is the outcome of one Op.
type Result struct {
	Status Status
	Flags  uint32
	CAS    Version
	Number uint64
	// Value of Found. Its owner is whoever filled the Result: see there how long it stays valid.
	Value []byte
	// Detail completes the message of Unavailable, Unknown and Corrupt; static text.
	Detail string
}

// Live reports whether r holds a value at now (Unix seconds).
func (r *Record) Live(now uint32) bool {
	return r.Kind == Value && (r.Expiry == 0 || r.Expiry > now)
}

// Apply runs op on r as memcached does, at now (Unix seconds), and reports whether it changed r.
// A changed record gets the cas token id, except by touch. Version and lineage are the caller's to
// move (see Succeed). maxValue bounds the value's length in bytes. r.Value may alias op.Value or
// the former value afterwards, but neither is written to.
func (op *Op) Apply(r *Record, id Version, now uint32, maxValue int) (Result, bool) {
	live := r.Live(now)
	put := func(v []byte, flags, expiry uint32) {
		r.Kind, r.Value, r.Flags, r.Expiry, r.CAS = Value, v, flags, expiry, id
	}
	switch op.Kind {
	case Get:
		return r.read(live), false
	case Set:
	case Add:
		if live {
			return Result{Status: NotStored}, false
		}
	case Replace:
		if !live {
			return Result{Status: NotStored}, false
		}
	case CompareAndSwap:
		if !live {
			return Result{Status: NotFound}, false
		}
		if r.CAS != op.CAS {
			return Result{Status: Exists}, false
		}
	case AppendTo, Prepend:
		if !live {
			return Result{Status: NotStored}, false
		}
		if len(r.Value)+len(op.Value) > maxValue {
			return Result{Status: TooLarge}, false
		}
		a, b := r.Value, op.Value
		if op.Kind == Prepend {
			a, b = b, a
		}
		put(append(append(make([]byte, 0, len(a)+len(b)), a...), b...), r.Flags, r.Expiry)
		return Result{Status: Stored}, true
	case Incr, Decr:
		return op.count(r, live, id)
	case Delete:
		if !live {
			return Result{Status: NotFound}, false
		}
		r.Kind, r.Value, r.Flags, r.Expiry, r.CAS = Tombstone, nil, 0, 0, id
		return Result{Status: Deleted}, true
	case Touch, GetAndTouch:
		if !live {
			return Result{Status: NotFound}, false
		}
		res := Result{Status: Touched}
		if op.Kind == GetAndTouch {
			res = r.read(live)
		}
		changed := r.Expiry != op.Expiry
		r.Expiry = op.Expiry
		return res, changed
	case Restore, Bury:
		if !r.outdated(Version(op.Delta), id) || op.Kind == Bury && r.Kind != Value {
			return Result{Status: NotStored}, false
		}
		if op.Kind == Bury {
			r.Kind, r.Value, r.Flags, r.Expiry, r.CAS = Tombstone, nil, 0, 0, id
			return Result{Status: Stored}, true
		}
	}
	put(op.Value, op.Flags, op.Expiry)
	return Result{Status: Stored}, true
}

// outdated reports whether r, which a round with this id may have changed already, lacks the mutation v and is older than it. A record that is not
// there lacks it, whatever its floor: a deletion that came later would not have been forgotten yet (see purgeAge in node).
func (r *Record) outdated(v, id Version) bool {
	return r.CAS != id && (r.Version == 0 || v > r.Version && r.Lineage(v) == NotFolded)
}

func (r *Record) read(live bool) Result {
	if !live {
		return Result{Status: NotFound}
	}
	return Result{Status: Found, Flags: r.Flags, CAS: r.CAS, Value: r.Value}
}

// count is incr (wraps at 2^64) and decr (stops at 0). Like memcached's, a number that gets
// shorter keeps its length, padded with spaces.
func (op *Op) count(r *Record, live bool, id Version) (Result, bool) {
	if !live {
		return Result{Status: NotFound}, false
	}
	n, ok := parseCounter(r.Value)
	if !ok {
		return Result{Status: NotNumeric}, false
	}
	if op.Kind == Incr {
		n += op.Delta
	} else {
		n -= min(n, op.Delta)
	}
	v := strconv.AppendUint(make([]byte, 0, 20), n, 10)
	for len(v) < len(r.Value) {
		v = append(v, ' ')
	}
	r.Value, r.CAS = v, id
	return Result{Status: Counted, Number: n}, true
}

// space is what C's isspace calls white space.
const space = " \t\n\v\f\r"

// parseCounter reads a decimal 64-bit number with white space around it. Like memcached it sets no
// limit to the padding nor to leading zeros: decr of a padded number pads it again, to any length.
func parseCounter(v []byte) (n uint64, ok bool) {
	v = bytes.Trim(v, space)
	for _, c := range v {
		d := uint64(c - '0')
		if d > 9 || n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, len(v) > 0
}
