package memcache

import (
	"kai/node/record"
)

const (
	// expectAtFirst makes the first batch of a connection look up at most 8 keys.
	expectAtFirst = 128 << 10
	// batchBytes is what the values of one batch should not exceed.
	batchBytes = 1 << 20
)

// getState is a retrieval command whose keys are spread over batches.
type getState struct {
	active, cas, touch bool
	// failed: an earlier key was undecided and its error line is sent, which ends the reply.
	failed bool
	expiry uint32
	keys   []byte // not yet asked for; part of the read buffer, which does not move meanwhile
}

// getLimit bounds the keys that the next batch looks up such that their values, if they are like
// those before, are about batchBytes: the Store holds them until the client has taken them, and a
// client may ask for 1,000 values of 1 MiB and read slowly.
func (c *conn) getLimit() int {
	return min(maxBatch, max(1, batchBytes/c.expect))
}

// learn moves the estimate: up at once, down by halves.
func (c *conn) learn(bytes, values int) {
	if values == 0 {
		return
	}
	if mean := bytes / values; mean >= c.expect {
		c.expect = mean
	} else {
		c.expect = max((c.expect+mean)/2, batchBytes/maxBatch)
	}
}

// startGet begins get <key>*, gets <key>*, gat <exptime> <key>* or gats <exptime> <key>*. All keys are
// checked before any is looked up, so that a bad one makes the reply one error line.
func (c *conn) startGet(rest []byte, size int, g getState) bool {
	c.r += size
	first, behind := word(rest)
	if len(first) == 0 {
		c.say(lineError, false)
		return true
	}
	if g.touch {
		var fault string
		if g.expiry, fault = c.expiry(first, lineBadExpiry); fault != "" {
			c.say(fault, false)
			return true
		}
		rest = behind
	}
	n := 0
	for key, more := word(rest); len(key) > 0; key, more = word(more) {
		if len(key) > record.MaxKey {
			c.say(lineBadFormat, false)
			return true
		}
		n++
	}
	if n == 0 {
		c.say(lineEnd, false)
		return true
	}
	g.active, g.keys = true, rest
	c.get = g
	c.continueGet()
	return true
}

// continueGet appends the command's next keys to the batch, as many as it takes.
func (c *conn) continueGet() {
	g := &c.get
	kind, form := record.Get, formValue
	if g.touch {
		kind = record.GetAndTouch
	}
	if g.cas {
		form = formValueCAS
	}
	if g.failed { // nothing more to say: the error line took the place of END
		c.get = getState{}
		return
	}
	for limit := c.getLimit(); g.active && c.gets < limit && len(c.entries) < maxBatch; c.gets++ {
		key, more := word(g.keys)
		next, _ := word(more)
		g.keys, g.active = more, len(next) > 0
		c.op(record.Op{Kind: kind, Key: key, Expiry: g.expiry}, entry{form: form, last: !g.active})
	}
}
