package memcache

import (
	"strconv"

	"kai/node/record"
)

// form says how the reply to an operation looks.
type form uint8

const (
	formText     form = iota // entry.text; no operation
	formStatus               // one line
	formValue                // VALUE, for get and gat
	formValueCAS             // VALUE with the cas token, for gets and gats
)

// entry is one place in the order of replies.
type entry struct {
	text    string
	form    form
	noreply bool
	last    bool // of a retrieval's keys
}

// encode appends the batch's replies to the reply buffer, and writes it out whenever it has grown
// long. It reports false when the client is gone.
func (c *conn) encode(results []record.Result) bool {
	values, size, next := 0, 0, 0
	for i := range c.entries {
		e := &c.entries[i]
		if e.form == formText {
			c.out = append(c.out, e.text...)
		} else {
			op, res := &c.ops[next], &results[next]
			next++
			c.tally(op.Kind, res.Status)
			switch {
			case e.form != formStatus:
				values++
				size += len(res.Value)
				if !c.value(op.Key, res, e) {
					return false
				}
			case !e.noreply:
				c.out = appendStatus(c.out, res)
			}
		}
		if len(c.out) >= flushAt && !c.flush() {
			return false
		}
	}
	c.held = size
	c.learn(size, values)
	return true
}

// value appends the reply to one key of a retrieval (protocol.txt, "Retrieval command"). A miss says
// nothing. An undecided key must not look like a miss: its error line ends the reply in the place of
// END, and nothing follows it. VALUEs before it stay: they are true, and may have been sent already.
func (c *conn) value(key []byte, res *record.Result, e *entry) bool {
	switch {
	case c.get.failed:
	case res.Status == record.Found:
		c.out = append(c.out, "VALUE "...)
		c.out = append(c.out, key...)
		c.out = append(c.out, ' ')
		c.out = strconv.AppendUint(c.out, uint64(res.Flags), 10)
		c.out = append(c.out, ' ')
		c.out = strconv.AppendUint(c.out, uint64(len(res.Value)), 10)
		if e.form == formValueCAS {
			c.out = append(c.out, ' ')
			c.out = strconv.AppendUint(c.out, uint64(res.CAS), 10)
		}
		c.out = append(c.out, "\r\n"...)
		if len(res.Value) < direct {
			c.out = append(c.out, res.Value...)
		} else if !c.writeWith(res.Value) {
			return false
		}
		c.out = append(c.out, "\r\n"...)
	case res.Status != record.NotFound:
		c.out = appendStatus(c.out, res)
		c.get.failed = true
	}
	if e.last {
		if !c.get.failed {
			c.out = append(c.out, lineEnd...)
		}
		c.get.failed = false
	}
	return true
}

// appendStatus is the one place where outcomes become reply lines.
func appendStatus(dst []byte, res *record.Result) []byte {
	switch res.Status {
	case record.Stored:
		return append(dst, "STORED\r\n"...)
	case record.NotStored:
		return append(dst, "NOT_STORED\r\n"...)
	case record.Exists:
		return append(dst, "EXISTS\r\n"...)
	case record.NotFound:
		return append(dst, "NOT_FOUND\r\n"...)
	case record.Deleted:
		return append(dst, "DELETED\r\n"...)
	case record.Touched:
		return append(dst, "TOUCHED\r\n"...)
	case record.Counted:
		return append(strconv.AppendUint(dst, res.Number, 10), "\r\n"...)
	case record.NotNumeric:
		return append(dst, "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"...)
	case record.TooLarge:
		return append(dst, lineTooLarge...)
	case record.Unavailable:
		return appendDetail(dst, "SERVER_ERROR unavailable (not applied)", res.Detail)
	case record.Corrupt:
		return appendDetail(dst, "SERVER_ERROR corrupt", res.Detail)
	case record.Unknown:
		return appendDetail(dst, "SERVER_ERROR timeout (outcome unknown)", res.Detail)
	}
	// No outcome, or one that this reply has no line for: nothing definite may be said.
	return append(dst, "SERVER_ERROR internal error (outcome unknown)\r\n"...)
}

func appendDetail(dst []byte, line, detail string) []byte {
	dst = append(dst, line...)
	if detail != "" {
		dst = append(dst, ": "...)
	}
	for i := 0; i < len(detail); i++ {
		if detail[i] >= ' ' { // a line break would be taken for the end of the reply
			dst = append(dst, detail[i])
		}
	}
	return append(dst, "\r\n"...)
}
