package memcache

import (
	"math"

	"kai/node/record"
)

// storage parses <key> <flags> <exptime> <bytes> [<cas unique>] [noreply] and the data block
// (protocol.txt, "Storage commands"). Once the length of the block is known, the block is consumed
// whatever else is wrong: it must never be taken for commands. memcached does so since 1.6.40
// (process_update_cmd_start); before, only when the value is too large.
func (c *conn) storage(kind record.OpKind, words [][]byte, size int) bool {
	quiet, args := noreply(words), 4
	if kind == record.CompareAndSwap {
		args = 5
	}
	if len(words) != args && len(words) != args+1 {
		c.r += size
		c.say(lineError, false)
		return true
	}
	length, ok := parseUint(words[3], math.MaxUint64-2)
	if !ok {
		c.r += size
		c.say(lineBadFormat, quiet)
		return true
	}
	op := record.Op{Kind: kind, Key: words[0]}
	fault := c.storageArgs(&op, words)
	if fault == "" && length > uint64(c.server.opt.MaxValueBytes) {
		fault = lineTooLarge
		c.counts[storeTooLarge]++
	}
	if fault != "" {
		c.r += size
		c.swallow = length + 2
		c.say(fault, quiet)
		return true
	}
	total := size + int(length) + 2
	have := c.in[c.r:c.w]
	if len(have) < total {
		c.need = total
		return false
	}
	c.r += total
	c.counts[cmdSet]++
	if have[total-2] != '\r' || have[total-1] != '\n' {
		c.say(lineBadChunk, quiet)
		return true
	}
	op.Value = have[size : total-2 : total-2]
	c.op(op, entry{form: formStatus, noreply: quiet})
	return true
}

// storageArgs fills flags, expiry and cas token, or says what is wrong.
func (c *conn) storageArgs(op *record.Op, words [][]byte) (fault string) {
	if len(op.Key) > record.MaxKey {
		return lineBadFormat
	}
	flags, ok := parseUint(words[1], math.MaxUint32)
	if !ok {
		return lineBadFormat
	}
	op.Flags = uint32(flags)
	if op.Kind == record.CompareAndSwap {
		cas, ok := parseUint(words[4], math.MaxUint64)
		if !ok {
			return lineBadFormat
		}
		op.CAS = record.Version(cas)
	}
	op.Expiry, fault = c.expiry(words[2], lineBadFormat)
	return fault
}

// metaSet refuses the meta protocol's set, and throws its data block away.
func (c *conn) metaSet(words [][]byte, size int) bool {
	c.r += size
	if len(words) > 1 {
		if length, ok := parseUint(words[1], math.MaxUint64-2); ok {
			c.swallow = length + 2
		}
	}
	c.say(lineError, false)
	return true
}

const (
	// relativeMax is the longest exptime that counts from now (protocol.txt, "Expiration times").
	relativeMax = 60 * 60 * 24 * 30
	// expired is an expiry that has passed.
	expired = 1
)

// expiry turns an exptime into absolute Unix seconds, 0 for never. malformed is the fault of a word
// that is no number.
func (c *conn) expiry(word []byte, malformed string) (at uint32, fault string) {
	exptime, ok := parseInt(word)
	switch {
	case !ok || exptime > math.MaxUint32:
		return 0, malformed
	case exptime == 0:
		return 0, ""
	case !c.server.opt.Expiration:
		return 0, lineNoExpiry
	case exptime < 0:
		return expired, ""
	}
	now := c.server.opt.Now().Unix()
	if exptime <= relativeMax {
		exptime += now
	}
	if exptime <= now || exptime > math.MaxUint32 {
		return expired, ""
	}
	return uint32(exptime), ""
}
