package memcache

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scripted is a connection whose client sends input in reads of at most cut bytes, and then ends.
type scripted struct {
	net.Conn
	input []byte
	cut   int
	out   bytes.Buffer
}

func (s *scripted) Read(b []byte) (int, error) {
	if len(s.input) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.cut)], s.input)
	s.input = s.input[n:]
	return n, nil
}

func (s *scripted) Write(b []byte) (int, error)      { return s.out.Write(b) }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// converse runs a whole connection over input.
func converse(input []byte, cut int) string {
	m := newModel()
	m.limit = 5000
	m.now = func() time.Time { return time.Unix(1_800_000_000, 0) }
	o := permissive(m)
	o.MaxValueBytes, o.Now = m.limit, m.now
	nc := &scripted{input: input, cut: cut}
	newConn(NewServer(o), nc).serve()
	return nc.out.String()
}

// replies counts the replies in out, and fails when out is no sequence of complete replies.
func replies(out string) (n int, err error) {
	inside := false // a retrieval or a list of statistics
	for out != "" {
		line, rest, found := strings.Cut(out, "\r\n")
		if !found {
			return n, errors.New("a line does not end")
		}
		out = rest
		words := strings.Split(line, " ")
		switch words[0] {
		case "VALUE":
			if len(words) < 4 || len(words) > 5 {
				return n, errors.New("malformed VALUE")
			}
			size, err := strconv.Atoi(words[3])
			if err != nil || len(out) < size+2 || out[size:size+2] != "\r\n" {
				return n, errors.New("VALUE of a wrong length")
			}
			out, inside = out[size+2:], true
		case "STAT":
			inside = true
		case "END", "ERROR", "CLIENT_ERROR", "SERVER_ERROR", "ERROR:":
			n, inside = n+1, false
		case "STORED", "NOT_STORED", "EXISTS", "NOT_FOUND", "DELETED", "TOUCHED", "OK", "VERSION", "RESET":
			n++
			if inside {
				return n, errors.New("a retrieval does not end")
			}
		default:
			if _, err := strconv.ParseUint(line, 10, 64); err != nil || inside {
				return n, errors.New("unknown reply")
			}
			n++
		}
	}
	if inside {
		return n, errors.New("the last retrieval does not end")
	}
	return n, nil
}

// FuzzConnection: whatever a client sends, in whatever pieces, the connection does not panic, answers
// in whole replies, and answers the same.
func FuzzConnection(f *testing.F) {
	for _, in := range sameAsMemcached {
		if len(in) < 10_000 {
			f.Add([]byte(in), uint16(7))
		}
	}
	for _, d := range deviations {
		if len(d.in) < 10_000 {
			f.Add([]byte(d.in), uint16(1))
		}
	}
	f.Fuzz(func(t *testing.T, input []byte, cut uint16) {
		if len(input) > 1<<16 {
			return
		}
		// The general statistics tell the time, and an endless line ends the connection when more than
		// maxShortLine of it is there: both depend on more than input.
		for line := range bytes.SplitSeq(input, []byte("\n")) {
			if len(line) > maxShortLine || bytes.Contains(line, []byte("stats")) {
				return
			}
		}
		whole := converse(input, 1<<20)
		if _, err := replies(whole); err != nil {
			t.Fatalf("%v: %q answered %q", err, input, whole)
		}
		if pieces := converse(input, 1+int(cut)); pieces != whole {
			t.Fatalf("%q answered\n%q at once, and\n%q in pieces of %d", input, whole, pieces, 1+cut)
		}
	})
}

// FuzzReplies: every request that wants a reply gets exactly one.
func FuzzReplies(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, uint16(seed*seed))
	}
	f.Fuzz(func(t *testing.T, seed uint64, cut uint16) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var input strings.Builder
		want := 0
		for range 1 + rnd.IntN(200) {
			in, n := request(rnd)
			input.WriteString(in)
			want += n
		}
		out := converse([]byte(input.String()), 1+int(cut))
		if n, err := replies(out); err != nil || n != want {
			t.Fatalf("%d replies (%v), want %d: %q answered %q", n, err, want, input.String(), out)
		}
	})
}

// request makes one request, right or wrong, whose end is certain, and the number of its replies.
func request(rnd *rand.Rand) (string, int) {
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	key := func() string { return pick("a", "b", "c", "d", strings.Repeat("k", 250), longKey) }
	number := func() string { return pick("0", "1", "7", "99999999999999999999", "x", "-1", "+5", "4294967295") }
	quiet := pick("", "", " noreply")
	n := 1
	if quiet != "" {
		n = 0
	}
	switch rnd.IntN(8) {
	case 0, 1, 2:
		size := rnd.IntN(100)
		if rnd.IntN(10) == 0 {
			size = rnd.IntN(20_000) // MaxValueBytes is 5,000
		}
		block := strings.Repeat(pick("v", "\n", "get a\r\n", "1")[:1], size)
		verb, cas := pick("set", "add", "replace", "append", "prepend", "cas"), ""
		if verb == "cas" {
			cas = " " + number()
		}
		return verb + " " + key() + " " + number() + " " + number() + " " + strconv.Itoa(size) + cas + quiet + "\r\n" +
			block + pick("\r\n", "\r\n", "\r\n", "xx"), n
	case 3, 4:
		return pick("get ", "gets ", "gat 0 ", "gats 9 ", "gat x ") + key() + strings.Repeat(" "+key(), rnd.IntN(300)) + "\r\n", 1
	case 5:
		return pick("incr ", "decr ", "touch ") + key() + " " + number() + quiet + pick("\r\n", "\n"), n
	case 6:
		return "delete " + key() + quiet + "\r\n", n
	}
	return pick("version", "verbosity 1", "stats", "stats slabs", "stats reset", "stats nosuch", "flush_all", "bogus", "", "mn", "get", "gat 0", "shutdown") + "\r\n", 1
}

func FuzzNumber(f *testing.F) {
	for _, s := range []string{"", "0", "+1", "-0", "18446744073709551615", "18446744073709551616", "\t7", "7\tx", "7x", "--1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, negative, ok := parseNumber([]byte(s))
		if want, err := strconv.ParseUint(s, 10, 64); err == nil && (!ok || negative || n != want) {
			t.Fatalf("%q: %d, %v, %v", s, n, negative, ok)
		}
		if !ok {
			return
		}
		digits := strings.TrimLeft(strings.TrimLeft(s, " \t\n\v\f\r"), "+-0")
		if text := strconv.FormatUint(n, 10); n != 0 && !strings.HasPrefix(digits, text) {
			t.Fatalf("%q: read as %s", s, text)
		}
	})
}
