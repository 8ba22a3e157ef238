package memcache

import (
	"bytes"
	"math"
	"time"
)

// other answers the commands that are no operations on a key.
func (c *conn) other(verb []byte, words [][]byte) {
	switch string(verb) {
	case "version":
		c.say("VERSION "+c.server.opt.Version+"\r\n", false)
	case "verbosity":
		c.verbosity(words)
	case "stats":
		c.stats(words)
	case "flush_all":
		c.flushAll(words)
	case "quit":
		c.closing = true
	case "shutdown":
		c.say("ERROR: shutdown not enabled\r\n", false)
	default:
		if isHTTP(verb, words) {
			c.closing = true
			return
		}
		c.say(lineError, false)
	}
}

// isHTTP recognises a browser that was tricked into talking to this port: memcached ends such a
// connection before the request's body is read as commands (process_command_ascii).
func isHTTP(verb []byte, words [][]byte) bool {
	if len(verb) < 2 || len(words) == 0 || bytes.IndexByte([]byte("gsacidt"), verb[0]) >= 0 ||
		verb[0] == 'm' && len(verb) == 2 {
		return false
	}
	return bytes.HasPrefix(words[len(words)-1], []byte("HTTP/"))
}

// verbosity is accepted and changes nothing: the log level is the operator's.
func (c *conn) verbosity(words [][]byte) {
	if len(words) != 1 && len(words) != 2 {
		c.say(lineError, false)
		return
	}
	line := lineOK
	if _, ok := parseUint(words[0], math.MaxUint32); !ok {
		line = lineBadFormat
	}
	c.say(line, noreply(words))
}

// flushAll is flush_all [<exptime>] [noreply]. A delay that is not positive means now.
func (c *conn) flushAll(words [][]byte) {
	quiet := noreply(words)
	if len(words) > 2 {
		c.say(lineError, false)
		return
	}
	c.counts[cmdFlush]++
	if !c.server.opt.FlushAll {
		c.say(lineNoFlush, quiet)
		return
	}
	var delay time.Duration
	if args := len(words); args > 1 || args == 1 && !quiet {
		exptime, ok := parseInt(words[0])
		if !ok || exptime > math.MaxUint32 {
			c.say(lineBadExpiry, quiet)
			return
		}
		if exptime > relativeMax { // absolute, as everywhere
			exptime -= c.server.opt.Now().Unix()
		}
		delay = time.Duration(max(0, exptime)) * time.Second
	}
	line := lineOK
	if admin := c.server.opt.Admin; admin == nil {
		line = "SERVER_ERROR flush_all not available\r\n"
	} else if err := admin.FlushAll(delay); err != nil {
		c.server.opt.Logger.Error("flush_all failed", "error", err)
		line = "SERVER_ERROR flush_all failed (outcome unknown)\r\n"
	}
	c.say(line, quiet)
}
