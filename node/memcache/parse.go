package memcache

import (
	"bytes"

	"kai/node/record"
)

const (
	// maxShortLine is the length from which a line without a newline ends the connection, unless it
	// is a retrieval (memcached's try_read_command_ascii).
	maxShortLine = 2048
	// maxLine bounds a retrieval's line; memcached has no bound. It holds 4,000 longest keys.
	maxLine = 1 << 20
	// maxWords is the largest number of words memcached takes from a line (MAX_TOKENS less the
	// terminal token). More words than this are counted as this many.
	maxWords = 23
)

const (
	lineError     = "ERROR\r\n"
	lineBadFormat = "CLIENT_ERROR bad command line format\r\n"
	lineTooLarge  = "SERVER_ERROR object too large for cache\r\n"
	lineBadChunk  = "CLIENT_ERROR bad data chunk\r\n"
	lineBadExpiry = "CLIENT_ERROR invalid exptime argument\r\n"
	lineBadDelta  = "CLIENT_ERROR invalid numeric delta argument\r\n"
	lineBadDelete = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
	lineBinary    = "CLIENT_ERROR binary protocol not supported\r\n"
	lineNoExpiry  = "CLIENT_ERROR exptime must be 0 unless KAI_EXPIRATION=true\r\n"
	lineNoFlush   = "CLIENT_ERROR flush_all not allowed unless KAI_FLUSH_ALL=true\r\n"
	lineOK        = "OK\r\n"
	lineEnd       = "END\r\n"
)

// parse fills the batch with the complete requests in the buffer, until the batch is full, a command
// must wait for the replies before it, or no complete request is left. It reports whether there is
// anything to execute.
func (c *conn) parse() bool {
	c.gets = 0
	for !c.closing && len(c.entries) < maxBatch && c.gets < c.getLimit() {
		if c.get.active {
			c.continueGet()
		} else if !c.next() {
			break
		}
	}
	return len(c.entries) > 0
}

// next consumes one request. It reports false when that takes more bytes, or must wait until the
// batch before it is executed.
func (c *conn) next() bool {
	if c.swallow > 0 {
		n := min(c.swallow, uint64(c.w-c.r))
		c.r += int(n)
		c.swallow -= n
	}
	have := c.in[c.r:c.w]
	if len(have) == 0 || len(have) < c.need {
		return false
	}
	if !c.started {
		c.started = true
		if have[0] == 0x80 { // a binary protocol request (protocol_binary.h): its client cannot read text
			c.say(lineBinary, false)
			c.closing = true
			return false
		}
	}
	end := bytes.IndexByte(have[c.scanned:], '\n')
	if end < 0 {
		c.scanned = len(have)
		c.closing = overlong(have)
		return false
	}
	end += c.scanned
	line := have[:end]
	if end > 1 && line[end-1] == '\r' { // as memcached: a lone "\r\n" keeps its \r, and is an error
		line = line[:end-1]
	}
	if !c.command(line, end+1) {
		return false
	}
	c.scanned, c.need = 0, 0
	return true
}

// overlong reports whether have, which holds no newline, is longer than the line of a request.
func overlong(have []byte) bool {
	if len(have) <= maxShortLine {
		return false
	}
	line := bytes.TrimLeft(have[:maxShortLine], " ")
	if len(have) >= maxLine || maxShortLine-len(line) > 100 {
		return true
	}
	for _, verb := range []string{"get ", "gets ", "gat ", "gats "} {
		if len(line) >= len(verb) && string(line[:len(verb)]) == verb {
			return false
		}
	}
	return true
}

// word cuts the first word off line. Only spaces separate words, as in memcached's
// tokenize_command; rest begins behind the word.
func word(line []byte) (w, rest []byte) {
	i := 0
	for i < len(line) && line[i] == ' ' {
		i++
	}
	line = line[i:]
	if i = bytes.IndexByte(line, ' '); i < 0 {
		return line, nil
	}
	return line[:i], line[i:]
}

// split takes the words behind the verb; together with it they are at most maxWords.
func (c *conn) split(line []byte) [][]byte {
	words := c.words[:0]
	for len(words) < maxWords-1 {
		var w []byte
		if w, line = word(line); len(w) == 0 {
			break
		}
		words = append(words, w)
	}
	return words
}

// command parses the request whose first line is line; size counts the line with its newline. It
// consumes the request and reports true, or leaves it alone and reports false: see next.
func (c *conn) command(line []byte, size int) bool {
	verb, rest := word(line)
	switch string(verb) {
	case "get":
		return c.startGet(rest, size, getState{})
	case "gets":
		return c.startGet(rest, size, getState{cas: true})
	case "gat":
		return c.startGet(rest, size, getState{touch: true})
	case "gats":
		return c.startGet(rest, size, getState{cas: true, touch: true})
	}
	words := c.split(rest)
	switch string(verb) {
	case "set":
		return c.storage(record.Set, words, size)
	case "add":
		return c.storage(record.Add, words, size)
	case "replace":
		return c.storage(record.Replace, words, size)
	case "append":
		return c.storage(record.AppendTo, words, size)
	case "prepend":
		return c.storage(record.Prepend, words, size)
	case "cas":
		return c.storage(record.CompareAndSwap, words, size)
	case "ms":
		return c.metaSet(words, size)
	case "stats", "flush_all", "quit":
		// These answer for, or act on, everything before them.
		if len(c.entries) > 0 {
			return false
		}
	}
	c.r += size
	switch string(verb) {
	case "incr":
		c.count(record.Incr, words)
	case "decr":
		c.count(record.Decr, words)
	case "delete":
		c.delete(words)
	case "touch":
		c.touch(words)
	default:
		c.other(verb, words)
	}
	return true
}

// noreply reports whether the last word asks for no reply. memcached looks only there, and believes
// it even in a line that is wrong (set_noreply_maybe).
func noreply(words [][]byte) bool {
	return len(words) > 0 && string(words[len(words)-1]) == "noreply"
}

func (c *conn) count(kind record.OpKind, words [][]byte) {
	quiet := noreply(words)
	if len(words) != 2 && len(words) != 3 {
		c.say(lineError, false)
		return
	}
	if len(words[0]) > record.MaxKey {
		c.say(lineBadFormat, quiet)
		return
	}
	delta, ok := parseUint(words[1], 1<<64-1)
	if !ok {
		c.say(lineBadDelta, quiet)
		return
	}
	c.op(record.Op{Kind: kind, Key: words[0], Delta: delta}, entry{form: formStatus, noreply: quiet})
}

// delete accepts a last argument 0, which very old clients send (protocol.txt, "Deletion").
func (c *conn) delete(words [][]byte) {
	quiet := noreply(words) && len(words) > 1
	zero := len(words) > 1 && string(words[1]) == "0"
	switch {
	case len(words) < 1 || len(words) > 3:
		c.say(lineError, false)
	case len(words) == 2 && !zero && !quiet, len(words) == 3 && !(zero && quiet):
		c.say(lineBadDelete, quiet)
	case len(words[0]) > record.MaxKey:
		c.say(lineBadFormat, quiet)
	default:
		c.op(record.Op{Kind: record.Delete, Key: words[0]}, entry{form: formStatus, noreply: quiet})
	}
}

func (c *conn) touch(words [][]byte) {
	quiet := noreply(words)
	if len(words) != 2 && len(words) != 3 {
		c.say(lineError, false)
		return
	}
	if len(words[0]) > record.MaxKey {
		c.say(lineBadFormat, quiet)
		return
	}
	expiry, fault := c.expiry(words[1], lineBadExpiry)
	if fault != "" {
		c.say(fault, quiet)
		return
	}
	c.op(record.Op{Kind: record.Touch, Key: words[0], Expiry: expiry}, entry{form: formStatus, noreply: quiet})
}
