package message

import "kai/node/record"

// A page is what a source answers to a Transfer: the records of a partition that come after a key, in
// the order of keys, as many as fit.

// pageBytes bounds a page, but for one record that is larger by itself. What a page brings is stored in one go, in the way
// of what clients write: so it is small.
const pageBytes = 64 << 10

const pageMore = 1

// BeginPage appends the head of a page.
func BeginPage(dst []byte) []byte { return append(dst, 0) }

// AppendRow appends a record to the page that begins at dst[0]. false: it is full, and marked so that
// the receiver asks for more.
func AppendRow(dst, key, enc []byte) (page []byte, ok bool) {
	if len(dst) > 1 && len(dst)+1+len(key)+4+len(enc) > pageBytes {
		dst[0] |= pageMore
		return dst, false
	}
	return appendLong(appendShort(dst, key), enc), true
}

// OpenPage reads the head of a page: whether the partition goes on behind it.
func OpenPage(page []byte) (rows []byte, more, ok bool) {
	if len(page) == 0 || page[0]&^pageMore != 0 {
		return nil, false, false
	}
	return page[1:], page[0]&pageMore != 0, true
}

// NextRow reads the first record of rows and verifies it. It aliases rows.
func NextRow(rows []byte) (key, enc, rest []byte, ok bool) {
	c := cursor{b: rows}
	key, enc = c.short(), c.long()
	ok = !c.bad && len(key) != 0 && len(key) <= record.MaxInternalKey && record.Check(key, enc) == nil
	return key, enc, c.b, ok
}
