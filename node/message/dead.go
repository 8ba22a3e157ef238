package message

import (
	"time"

	"kai/node/record"
)

// Dead is a list of a partition's dead records.
type Dead struct {
	// Items of a Purge, and the purge fence that they need.
	Items []byte
	Fence record.Ballot
	// Due is how long it takes until others, alive or not dead for long enough, may follow; -1 for never.
	Due time.Duration
	// More says that the list was full, and goes on behind the key After.
	After []byte
	More  bool
}

// AppendDead appends a key and the ballot of its dead state to the items of a Purge.
func AppendDead(dst, key []byte, b record.Ballot) []byte {
	return appendBallot(appendShort(dst, key), b)
}

// NextDead reads the first of them. The key aliases items.
func NextDead(items []byte) (key []byte, b record.Ballot, rest []byte, ok bool) {
	c := cursor{b: items}
	key, b = c.short(), c.ballot()
	ok = !c.bad && len(key) != 0 && len(key) <= record.MaxInternalKey && !b.IsZero()
	return key, b, c.b, ok
}
