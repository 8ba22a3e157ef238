//go:build linux

package e2e

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/anishathalye/porcupine"
)

// state is what a memcache server holds of one key. token is 0 until a client has seen it.
type state struct {
	live  bool
	value string
	token uint64
}

// memcache is one key of a memcache server as a sequential machine, written from protocol.txt and
// sharing no code with Kai. An operation of unknown fate fits in any state: it may have come to
// nothing, and is then placed at the end of the history, where nobody looks.
func memcache() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{} },
		Step: func(s, in, out any) (bool, any) {
			st, q, r := s.(state), in.(command), out.(reply)
			want, next := step(st, q)
			switch {
			case r.fate == unknown:
				return true, next
			case want.word != r.word || want.value != r.value || want.number != r.number:
				return false, s
			case q.verb == "gets" && r.word == "VALUE":
				if st.token != 0 && st.token != r.token {
					return false, s
				}
				next.token = r.token
			}
			return true, next
		},
		Equal: func(a, b any) bool { return a == b },
		DescribeOperation: func(in, out any) string {
			q, r := in.(command), out.(reply)
			return strings.TrimSpace(q.wire()) + " → " + r.String()
		},
		DescribeState: func(s any) string {
			if st := s.(state); st.live {
				return fmt.Sprintf("%q token %d", st.value, st.token)
			}
			return "absent"
		},
	}
}

func (r reply) String() string {
	switch {
	case r.fate != definite:
		return "unknown: " + r.why
	case r.word == "VALUE":
		return fmt.Sprintf("%q token %d", r.value, r.token)
	case r.word == "NUMBER":
		return strconv.FormatUint(r.number, 10)
	}
	return r.word
}

// step is the command's reply in a state, and the state after it. The reply of gets lacks the token.
func step(s state, q command) (reply, state) {
	word := func(w string) reply { return reply{word: w} }
	put := func(v string) state { return state{live: true, value: v} }
	switch q.verb {
	case "get", "gets":
		if !s.live {
			return word("END"), s
		}
		return reply{word: "VALUE", value: s.value}, s
	case "set":
		return word("STORED"), put(q.value)
	case "add":
		if s.live {
			return word("NOT_STORED"), s
		}
		return word("STORED"), put(q.value)
	case "replace", "append", "prepend":
		if !s.live {
			return word("NOT_STORED"), s
		}
		v := map[string]string{"replace": q.value, "append": s.value + q.value, "prepend": q.value + s.value}
		return word("STORED"), put(v[q.verb])
	case "cas":
		switch {
		case !s.live:
			return word("NOT_FOUND"), s
		case s.token != q.token:
			// Who has a token has seen it, and the gets that saw it stands before this in any order;
			// so a token nobody has seen is not q's.
			return word("EXISTS"), s
		}
		return word("STORED"), put(q.value)
	case "incr", "decr":
		return count(s, q)
	case "delete":
		if !s.live {
			return word("NOT_FOUND"), s
		}
		return word("DELETED"), state{}
	case "touch":
		if !s.live {
			return word("NOT_FOUND"), s
		}
		return word("TOUCHED"), s
	}
	panic("no such verb: " + q.verb)
}

// count is incr and decr. A number that gets shorter is padded with spaces to its former length.
func count(s state, q command) (reply, state) {
	if !s.live {
		return reply{word: "NOT_FOUND"}, s
	}
	n, err := strconv.ParseUint(strings.TrimRight(s.value, " "), 10, 64)
	if err != nil {
		return reply{word: "NON_NUMERIC"}, s
	}
	if q.verb == "incr" {
		n += q.delta
	} else {
		n -= min(n, q.delta)
	}
	v := fmt.Sprintf("%-*d", len(s.value), n)
	return reply{word: "NUMBER", number: n}, state{live: true, value: v}
}
