package memcache

import (
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"
)

const lineUsageDetail = "CLIENT_ERROR usage: stats detail on|off|dump\r\n"

// stats answers stats [<args>]. It runs with an empty batch, so it writes straight to the reply
// buffer.
func (c *conn) stats(words [][]byte) {
	c.addCounts()
	what := ""
	if len(words) > 0 {
		what = string(words[0])
	}
	switch what {
	case "":
		c.server.general(c.stat)
	case "settings":
		c.server.settings(c.stat)
	case "items", "slabs", "conns":
		// Kai has no slabs, and shows no connections to clients: an empty list, as of an empty cache.
		if what == "slabs" {
			c.stat("active_slabs", "0")
			c.stat("total_malloced", "0")
		}
	case "sizes":
		c.stat("sizes_status", "disabled")
	case "reset":
		c.server.reset()
		c.say("RESET\r\n", false)
		return
	case "detail":
		c.statsDetail(words[1:])
		return
	default:
		c.say(lineError, false)
		return
	}
	c.out = append(c.out, lineEnd...)
	if len(c.out) >= flushAt && !c.flush() {
		c.closing = true
	}
}

// statsDetail accepts the switch, and has nothing to tell.
func (c *conn) statsDetail(words [][]byte) {
	line := lineUsageDetail
	if len(words) > 0 {
		switch string(words[0]) {
		case "on", "off":
			line = lineOK
		case "dump":
			line = lineEnd
		}
	}
	c.say(line, false)
}

func (c *conn) stat(name, value string) {
	c.out = append(append(c.out, "STAT "...), name...)
	c.out = append(append(c.out, ' '), value...)
	c.out = append(c.out, "\r\n"...)
}

// reset makes what counts events start from 0 again, for stats: Counters goes on.
func (s *Server) reset() {
	for k := range s.resetAt {
		s.resetAt[k].Store(s.total(counter(k)))
	}
}

// general emits the general-purpose statistics: those that monitoring tools read, in memcached's
// order, and then what Admin adds. Admin's value wins where both have one.
func (s *Server) general(emit func(name, value string)) {
	var extra [][2]string
	override := map[string]string{}
	if s.opt.Admin != nil {
		s.opt.Admin.Stats(func(name, value string) {
			extra = append(extra, [2]string{name, value})
			override[name] = value
		})
	}
	s.own(func(name, value string) {
		if v, ok := override[name]; ok {
			value = v
			delete(override, name)
		}
		emit(name, value)
	})
	for _, e := range extra {
		if v, ok := override[e[0]]; ok {
			delete(override, e[0])
			emit(e[0], v)
		}
	}
}

// own emits what the server knows. Items, bytes and evictions are the store's, and 0 until Admin
// tells; Kai never evicts.
func (s *Server) own(emit func(name, value string)) {
	number := func(name string, n uint64) { emit(name, strconv.FormatUint(n, 10)) }
	now := s.opt.Now()
	number("pid", uint64(os.Getpid()))
	number("uptime", uint64(max(0, now.Sub(s.started).Seconds())))
	number("time", uint64(now.Unix()))
	emit("version", s.opt.Version)
	number("pointer_size", 32<<(^uint(0)>>63))
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) == nil {
		emit("rusage_user", seconds(use.Utime))
		emit("rusage_system", seconds(use.Stime))
	}
	number("max_connections", uint64(s.opt.MaxConnections))
	number("curr_connections", uint64(s.Connections()))
	for k, name := range counterNames {
		number(name, s.total(counter(k))-s.resetAt[k].Load())
	}
	number("limit_maxbytes", math.MaxInt64) // bounded by the disk: a store refuses, it does not evict
	number("accepting_conns", 1)
	number("listen_disabled_num", 0)
	number("threads", uint64(runtime.GOMAXPROCS(0)))
	for _, name := range [...]string{"bytes", "curr_items", "total_items", "evictions", "reclaimed"} {
		number(name, 0)
	}
}

func seconds(t syscall.Timeval) string {
	usec := strconv.FormatInt(int64(t.Usec)+1_000_000, 10)
	return strconv.FormatInt(int64(t.Sec), 10) + "." + usec[1:]
}

// settings emits those of memcached's settings that mean something here, with its names.
func (s *Server) settings(emit func(name, value string)) {
	yes := map[bool]string{true: "yes", false: "no"}
	emit("maxbytes", strconv.Itoa(math.MaxInt64))
	emit("maxconns", strconv.Itoa(s.opt.MaxConnections))
	emit("evictions", "off")
	emit("num_threads", strconv.Itoa(runtime.GOMAXPROCS(0)))
	emit("cas_enabled", "yes")
	emit("binding_protocol", "ascii")
	emit("auth_enabled_sasl", "no")
	emit("item_size_max", strconv.Itoa(s.opt.MaxValueBytes))
	emit("maxconns_fast", "yes")
	emit("flush_enabled", yes[s.opt.FlushAll])
	emit("dump_enabled", "no")
	emit("idle_timeout", "0")
	emit("kai_expiration", yes[s.opt.Expiration])
}
