package memcache

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kai/node/record"
)

var longKey = strings.Repeat("k", record.MaxKey+1)

// exchange is a conversation: what goes in, and the exact answer.
type exchange struct{ name, in, out string }

func run(t *testing.T, o func(*model) Options, cases []exchange) {
	t.Helper()
	for _, e := range cases {
		t.Run(e.name, func(t *testing.T) {
			_, addr := start(t, o(newModel()))
			if got := talk(t, addr, e.in); got != e.out {
				t.Errorf("sent %.300q\n got %.300q\nwant %.300q", e.in, got, e.out)
			}
		})
	}
}

// TestKai holds the answers in which Kai means to differ from memcached (DESIGN.md, "Deviations");
// TestSameAsMemcached holds the others.
func TestKai(t *testing.T) {
	run(t, permissive, []exchange{
		{"block of a refused set is not executed", "set " + longKey + " 0 0 7\r\nversion\r\nversion\r\n",
			lineBadFormat + "VERSION 1.6.27-kai\r\n"},
		{"flags beyond 32 bits", "set a 4294967296 0 7\r\nversion\r\nget a\r\n", lineBadFormat + lineEnd},
		{"exptime beyond 32 bits", "set a 0 4294967296 1\r\n1\r\nget a\r\n", lineBadFormat + lineEnd},
		{"length beyond 32 bits", "set a 0 0 4294967298\r\nversion\r\n", lineTooLarge},
		{"block of a too large set keeps the old value", "set a 0 0 1\r\n1\r\nset a 0 0 1048577\r\n" +
			strings.Repeat("x", 1<<20+1) + "\r\nget a\r\n", "STORED\r\n" + lineTooLarge + "VALUE a 0 1\r\n1\r\nEND\r\n"},
		{"largest value", "set a 0 0 1048576\r\n" + strings.Repeat("x", 1<<20) + "\r\nget a\r\n",
			"STORED\r\nVALUE a 0 1048576\r\n" + strings.Repeat("x", 1<<20) + "\r\nEND\r\n"},
		{"bad key in a get after other commands", "version\r\nget a " + longKey + "\r\nversion\r\n",
			"VERSION 1.6.27-kai\r\n" + lineBadFormat + "VERSION 1.6.27-kai\r\n"},
		{"meta", "mn\r\nmg a\r\nms a 7\r\nversion\r\nma a\r\nmd a\r\nme a\r\n", strings.Repeat(lineError, 6)},
		{"binary protocol", "\x80\x0a\x00\x00", lineBinary},
		{"stats order", "set a 0 0 1\r\n1\r\nstats sizes\r\nget a\r\n",
			"STORED\r\nSTAT sizes_status disabled\r\nEND\r\nVALUE a 0 1\r\n1\r\nEND\r\n"},
		{"slabs are not Kai's", "slabs reassign 1 2\r\nlru mode flat\r\nwatch\r\ncache_memlimit 64\r\nbget a\r\n",
			strings.Repeat(lineError, 5)},
	})
}

func TestStoreNotCache(t *testing.T) {
	strict := func(m *model) Options { return Options{Store: m, Admin: m, Version: "v"} }
	block := func(verb string) exchange {
		return exchange{verb, verb + " a 0 60 9\r\nflush_all\r\nget a\r\n", lineNoExpiry + lineEnd}
	}
	run(t, strict, []exchange{
		block("set"), block("add"), block("replace"), block("append"), block("prepend"),
		{"cas", "cas a 0 -1 9 1\r\nflush_all\r\nget a\r\n", lineNoExpiry + lineEnd},
		{"noreply", "set a 0 60 9 noreply\r\nflush_all\r\nget a\r\n", lineEnd},
		{"touch", "set a 0 0 1\r\n1\r\ntouch a 60\r\ntouch a 0\r\n", "STORED\r\n" + lineNoExpiry + "TOUCHED\r\n"},
		{"gat", "gat 60 a\r\ngats 60 a\r\ngat 0 a\r\n", lineNoExpiry + lineNoExpiry + lineEnd},
		{"flush_all", "flush_all\r\nflush_all 10\r\nflush_all noreply\r\nversion\r\n",
			lineNoFlush + lineNoFlush + "VERSION v\r\n"},
	})
}

func TestUndecided(t *testing.T) {
	outcome := map[string]record.Result{
		"u": {Status: record.Unavailable, Detail: "no quorum"},
		"t": {Status: record.Unknown, Detail: "deadline"},
		"c": {Status: record.Corrupt, Detail: "checksum\r\nEND"},
		"l": {Status: record.TooLarge},
		"n": {},
	}
	failing := func(m *model) Options {
		m.fail = func(op *record.Op) (record.Result, bool) { r, ok := outcome[string(op.Key)]; return r, ok }
		return permissive(m)
	}
	const (
		u = "SERVER_ERROR unavailable (not applied): no quorum\r\n"
		o = "SERVER_ERROR timeout (outcome unknown): deadline\r\n"
		c = "SERVER_ERROR corrupt: checksumEND\r\n"
		a = "set a 0 0 1\r\n1\r\n"
	)
	many := strings.Repeat(" a", 100)
	run(t, failing, []exchange{
		{"set", "set u 0 0 1\r\n1\r\nset t 0 0 1\r\n1\r\nset c 0 0 1\r\n1\r\nappend l 0 0 1\r\n1\r\nset n 0 0 1\r\n1\r\n",
			u + o + c + lineTooLarge + "SERVER_ERROR internal error (outcome unknown)\r\n"},
		{"others", "incr u 1\r\ndelete t\r\ntouch c 0\r\ncas u 0 0 1 1\r\n1\r\n", u + o + c + u},
		{"noreply", "set u 0 0 1 noreply\r\n1\r\ndelete t noreply\r\nversion\r\n", "VERSION 1.6.27-kai\r\n"},
		{"get", "get u\r\nget t\r\ngets c\r\ngat 0 u\r\nget a\r\n", u + o + c + u + lineEnd},
		{"get of several", a + "get a u a\r\nget t a\r\nget a\r\n",
			"STORED\r\nVALUE a 0 1\r\n1\r\n" + u + o + "VALUE a 0 1\r\n1\r\nEND\r\n"},
		{"get of many", a + "get u" + many + "\r\nget" + many + " t\r\nversion\r\n",
			"STORED\r\n" + u + strings.Repeat("VALUE a 0 1\r\n1\r\n", 100) + o + "VERSION 1.6.27-kai\r\n"},
	})
}

// TestBatches: replies keep their order however the requests are cut into batches and reads.
func TestBatches(t *testing.T) {
	var in, out strings.Builder
	for i := range 500 {
		fmt.Fprintf(&in, "set k%d %d 0 3\r\n%03d\r\nget k%d nope\r\nbogus\r\nincr k%d 1\r\ndelete nope noreply\r\nverbosity 1\r\n", i, i, i, i, i)
		fmt.Fprintf(&out, "STORED\r\nVALUE k%d %d 3\r\n%03d\r\nEND\r\nERROR\r\n%d\r\nOK\r\n", i, i, i, i+1)
	}
	in.WriteString("get")
	for i := range 500 {
		fmt.Fprintf(&in, " k%d", i)
		fmt.Fprintf(&out, "VALUE k%d %d 3\r\n%-3d\r\n", i, i, i+1)
	}
	in.WriteString("\r\nquit\r\nversion\r\n")
	out.WriteString(lineEnd)
	for _, cut := range []int{1 << 20, 1000, 7} {
		m := newModel()
		_, addr := start(t, permissive(m))
		nc := dial(t, addr)
		go func() {
			for rest := in.String(); rest != ""; {
				n := min(cut, len(rest))
				if _, err := nc.Write([]byte(rest[:n])); err != nil {
					return
				}
				rest = rest[n:]
			}
		}()
		expect(t, nc, out.String())
		m.mu.Lock()
		if m.largest > maxBatch {
			t.Errorf("a batch of %d", m.largest)
		}
		m.mu.Unlock()
	}
}

func TestGeneralStats(t *testing.T) {
	_, addr := start(t, permissive(newModel()))
	// More than one batch before stats: counts must not be added twice.
	got := talk(t, addr, strings.Repeat("verbosity 1\r\nincr c 1\r\n", 1000)+"set a 0 0 1\r\n1\r\nget a b\r\nincr a 1\r\nincr b 1\r\ndelete b\r\ntouch a 0\r\ncas a 0 0 1 99\r\n1\r\nstats\r\n")
	for _, want := range []string{
		"cmd_get 2", "cmd_set 2", "get_hits 1", "get_misses 1", "incr_hits 1", "incr_misses 1001", "delete_misses 1",
		"cmd_touch 1", "touch_hits 1", "cas_badval 1", "curr_connections 1", "total_connections 1", "pointer_size 64",
		"version 1.6.27-kai", "curr_items 7", "kai_node 0123456789abcdef", "evictions 0", "rejected_connections 0",
	} {
		if strings.Count(got, "STAT "+want+"\r\n") != 1 {
			t.Errorf("stats lack %q: %q", want, got)
		}
	}
	if got := talk(t, addr, "stats reset\r\nstats\r\n"); !strings.Contains(got, "RESET\r\n") || !strings.Contains(got, "STAT cmd_get 0\r\n") {
		t.Errorf("after reset: %q", got)
	}
}

// TestExpiry: exptimes become absolute (protocol.txt, "Expiration times").
func TestExpiry(t *testing.T) {
	const now, month = 1_800_000_000, 60 * 60 * 24 * 30
	c := newConn(NewServer(Options{Expiration: true, Now: func() time.Time { return time.Unix(now, 999_999_999) }}), nil)
	for word, want := range map[string]uint32{
		"0": 0, "-0": 0, "1": now + 1, "2592000": now + month, "2592001": 1, "-1": 1, "-99999999999": 1,
		"1799999999": 1, "1800000000": 1, "1800000001": now + 1, "2147483648": 1 << 31, "4294967295": 1<<32 - 1,
	} {
		if at, fault := c.expiry([]byte(word), "malformed"); at != want || fault != "" {
			t.Errorf("%s: %d %q, want %d", word, at, fault, want)
		}
	}
	for _, word := range []string{"", "x", "1x", "4294967296", "99999999999999999999"} {
		if at, fault := c.expiry([]byte(word), "malformed"); at != 0 || fault != "malformed" {
			t.Errorf("%s: %d %q", word, at, fault)
		}
	}
	c.server.opt.Expiration = false
	for word, want := range map[string]string{"0": "", "1": lineNoExpiry, "-1": lineNoExpiry, "x": "malformed"} {
		if at, fault := c.expiry([]byte(word), "malformed"); at != 0 || fault != want {
			t.Errorf("without expiration %s: %d %q", word, at, fault)
		}
	}
}

// TestBatchIsCleared: an idle connection, and a pooled batch, hold nothing of the Store's or a client's.
func TestBatchIsCleared(t *testing.T) {
	c := loop(100)
	c.feed([]byte("set a 0 0 1\r\n1\r\nget a b c\r\n"))
	for _, res := range c.results {
		if res.Value != nil || res.Status != record.NoStatus {
			t.Errorf("result left behind: %v", res.Status)
		}
	}
	for _, op := range c.ops[:cap(c.ops)] {
		if op.Key != nil || op.Value != nil {
			t.Errorf("operation left behind: %v", op.Kind)
		}
	}
}
