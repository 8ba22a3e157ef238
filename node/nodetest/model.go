package nodetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/anishathalye/porcupine"

	"kai/node/record"
	"kai/node/ring"
)

// input and output are what a client asked and heard, as the model sees it. The model is written
// anew, from memcached's protocol.txt, and shares no code with record.Op.Apply.
type input struct {
	kind  record.OpKind
	key   string
	arg   string
	delta uint64
	token record.Version
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
	put := func(v string) state { return state{live: true, value: v} }
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
	}
	return false, s
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

// encodeConfiguration is good enough for a disk that does not rot.
func encodeConfiguration(c ring.Configuration) []byte {
	b, _ := json.Marshal(c)
	return b
}

func decodeConfiguration(b []byte) (c ring.Configuration) {
	if err := json.Unmarshal(b, &c); err != nil {
		panic(err)
	}
	return c
}
