package quorum

import (
	"kai/node/flight"
	"kai/node/ring"
)

// Hinter hears that a write quorum accepted a state of key, and that peer, a replica of p, did not say
// that it has. It must not block, and must copy key if it keeps it. It may be called on any goroutine.
type Hinter interface {
	// by is the context of the write, if that was known to have missed somebody when it ended, or is sampled; else zero.
	Missed(p ring.Partition, peer ring.NodeID, key []byte, by flight.Context)
}

// keep copies the key of an Accept. The request's own is the lane's, or a session's, and theirs again as
// soon as the round is decided, while missed looks at the last reply. So a copy there would be too
// late, and one at the decision is as frequent as this one: a round is mostly decided before its last
// reply is in. It goes to memory that the round keeps.
func (r *round) keep(key []byte) {
	if r.c.opts.Hinter != nil {
		r.key = append(r.key, key...)
	}
}

// missed gives hints for the members that did not accept what others chose. The last reply is in, so that
// nobody else has the round. One that accepted, and whose answer came after the link had given it up, gets
// a hint it does not need. This node needs none to look at itself: what its own replica refused, anti-entropy finds.
func (r *round) missed() {
	if !r.g.writes(r.acked) {
		return // not chosen, as far as anybody knows
	}
	for i, m := range r.g.members {
		if i != r.g.self && !r.acked.has(i) {
			r.c.opts.Hinter.Missed(r.p, m.id, r.key, r.context)
		}
	}
}
