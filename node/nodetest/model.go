package nodetest

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"kai/node/record"
)

// input and output are what a client asked and heard, as the model sees it. The model is written
// anew, from memcached's protocol.txt, and shares no code with record.Op.Apply.
type input struct {
	kind  record.OpKind
	key   string
	arg   string
	delta uint64
	token record.Version
	// expired: what is stored has expired already.
	expired bool
}

type output struct {
	status record.Status
	value  string
	token  record.Version
	number uint64
	// unknown: the operation may take effect at any time from its call on.
	unknown bool
}

// state of one key. The token is 0 until a client has seen it.
type state struct {
	live  bool
	value string
	token record.Version
}

// model is the sequential memcache register; an operation of unknown outcome always applies, since
// it may be placed at the end, where nobody looks.
var model = porcupine.Model{
	Partition: func(h []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		var keys []string
		for _, o := range h {
			k := o.Input.(input).key
			if byKey[k] == nil {
				keys = append(keys, k)
			}
			byKey[k] = append(byKey[k], o)
		}
		var parts [][]porcupine.Operation
		for _, k := range keys {
			parts = append(parts, byKey[k])
		}
		return parts
	},
	Init:  func() any { return state{} },
	Step:  func(s, in, out any) (bool, any) { return step(s.(state), in.(input), out.(output)) },
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(in, out any) string {
		i, o := in.(input), out.(output)
		return fmt.Sprintf("%v %s %q token=%d -> status=%d %q token=%d number=%d unknown=%v", i.kind, i.key, i.arg, i.token, o.status, o.value, o.token, o.number, o.unknown)
	},
}

func step(s state, in input, out output) (bool, state) {
	is := func(want record.Status) bool { return out.unknown || out.status == want }
	put := func(v string) state {
		if in.expired {
			return state{}
		}
		return state{live: true, value: v}
	}
	switch in.kind {
	case record.Get:
		if !s.live {
			return out.status == record.NotFound, s
		}
		if out.status != record.Found || out.value != s.value || s.token != 0 && s.token != out.token {
			return false, s
		}
		s.token = out.token
		return true, s
	case record.Set:
		return is(record.Stored), put(in.arg)
	case record.Add:
		if s.live {
			return is(record.NotStored), s
		}
		return is(record.Stored), put(in.arg)
	case record.Replace, record.AppendTo, record.Prepend:
		if !s.live {
			return is(record.NotStored), s
		}
		switch in.kind {
		case record.AppendTo:
			return is(record.Stored), put(s.value + in.arg)
		case record.Prepend:
			return is(record.Stored), put(in.arg + s.value)
		}
		return is(record.Stored), put(in.arg)
	case record.CompareAndSwap:
		switch {
		case !s.live:
			return is(record.NotFound), s
		case s.token != in.token: // a token never seen belongs to a later write than in.token's
			return is(record.Exists), s
		}
		return is(record.Stored), put(in.arg)
	case record.Incr, record.Decr:
		return count(s, in, out)
	case record.Delete:
		if !s.live {
			return is(record.NotFound), s
		}
		return is(record.Deleted), state{}
	case record.Restore, record.Bury:
		return restore(s, in, out, put)
	}
	return false, s
}

const (
	// oldest and newest are versions of snapshots before and after everything.
	oldest, newest = 1, math.MaxUint64
)

// restore is a record of a snapshot brought back. That it is refused is no fault: what is there may be newer. What must not be: that it
// is taken over what came of it, or over anything if it is the oldest.
func restore(s state, in input, out output, put func(string) state) (bool, state) {
	if !out.unknown && out.status == record.NotStored {
		return true, s
	}
	restored := state{}
	if in.kind == record.Restore {
		restored = put(in.arg)
	}
	allowed := in.delta == newest || in.delta == oldest && in.kind == record.Restore && !s.live
	switch {
	case out.unknown && !allowed:
		return true, s
	case out.unknown:
		return true, restored
	}
	return allowed && out.status == record.Stored, restored
}

func count(s state, in input, out output) (bool, state) {
	if !s.live {
		return out.unknown || out.status == record.NotFound, s
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace([]byte(s.value))), 10, 64)
	if err != nil {
		return out.unknown || out.status == record.NotNumeric, s
	}
	if in.kind == record.Incr {
		n += in.delta
	} else {
		n -= min(n, in.delta)
	}
	v := strconv.FormatUint(n, 10)
	for len(v) < len(s.value) {
		v += " "
	}
	return out.unknown || out.status == record.Counted && out.number == n, state{live: true, value: v}
}

// judge says whether the history is linearizable; Unknown if that cannot be told within the limit.
//
// The cost grows with the number of unknown operations, each of which may take effect anywhere from its
// call on. So those whose value nobody ever saw are left out at first: they can all be placed at the
// end, which makes the whole history legal if the rest is. Only if the rest is not, all of it is judged.
func judge(h []porcupine.Operation, limit time.Duration) porcupine.CheckResult {
	seen := observe(h)
	var rest []porcupine.Operation
	for _, o := range h {
		if in := o.Input.(input); !o.Output.(output).unknown || seen.has(in) {
			rest = append(rest, o)
		}
	}
	if porcupine.CheckOperationsTimeout(model, rest, limit) == porcupine.Ok {
		return porcupine.Ok
	}
	return porcupine.CheckOperationsTimeout(model, h, limit)
}

// observed is what clients saw of values.
type observed struct {
	text    string
	numbers map[string][]uint64 // by key
}

func observe(h []porcupine.Operation) observed {
	seen := observed{numbers: map[string][]uint64{}}
	var text strings.Builder
	for _, o := range h {
		in, out := o.Input.(input), o.Output.(output)
		text.WriteString(out.value)
		n, err := strconv.ParseUint(strings.TrimSpace(out.value), 10, 64)
		if out.status == record.Counted {
			n, err = out.number, nil
		}
		if err == nil {
			seen.numbers[in.key] = append(seen.numbers[in.key], n)
		}
	}
	seen.text = text.String()
	return seen
}

// reach is further than a history's increments and decrements can carry a counter; the workload's
// counters begin 1000 apart.
const reach = 400

// has reports whether a trace of in may have been seen. Of a delete and of a step of a counter
// nobody can tell.
func (s observed) has(in input) bool {
	switch {
	case in.kind == record.Delete || in.kind == record.Incr || in.kind == record.Decr:
		return true
	case in.delta == 0:
		return strings.Contains(s.text, in.arg)
	}
	from, _ := strconv.ParseUint(in.arg, 10, 64)
	return slices.ContainsFunc(s.numbers[in.key], func(n uint64) bool { return n+reach > from && n < from+reach })
}
