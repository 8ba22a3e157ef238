package quorum

import (
	"context"
	"fmt"
	"time"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Decide makes value the value of key, unless it has one, and returns the value that it has then: one
// decision among all who call it with that key, as long as nobody writes or deletes it in another way.
// It blocks up to twice the request timeout. An error means that nothing is known: ask again.
func (c *Coordinator) Decide(ctx context.Context, key, value []byte) (chosen []byte, err error) {
	s := c.Session()
	defer s.Close()
	var res [1]record.Result
	s.Execute([]record.Op{{Kind: record.Add, Key: key, Value: value}}, res[:])
	if res[0].Status == record.Stored {
		return value, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.Execute([]record.Op{{Kind: record.Get, Key: key}}, res[:])
	if res[0].Status != record.Found {
		return nil, fmt.Errorf("quorum: no decision yet: %s", res[0].Detail)
	}
	return append([]byte(nil), res[0].Value...), nil
}

// Rewrite has the state of key accepted anew by a write quorum, at a ballot of today, if this node is a replica of it. It blocks up to the
// request timeout.
func (c *Coordinator) Rewrite(key []byte) {
	hash := ring.Hash(key)
	p, g := c.group(hash)
	if g == nil || g.self < 0 {
		return
	}
	w := make(rewritten, 1)
	c.submit(p, &mutation{op: record.Op{Kind: record.Get, Key: append([]byte(nil), key...)}, hash: hash, deadline: time.Now().Add(c.opts.Timeout), done: w, rewrite: true}, false, nil)
	<-w
}

type rewritten chan struct{}

func (w rewritten) mutated(*mutation) { w <- struct{}{} }

// Chosen returns the encoded state of key that a write quorum holds, which is certainly chosen. If there
// is none, the state is first written anew, if this node is a replica of it, and it looks once more. (A quorum read need
// not meet what only one replica has accepted: those of the others that agree may answer it, every time.) It blocks up to
// three times the request timeout.
func (c *Coordinator) Chosen(key []byte) (enc []byte, ok bool) {
	hash := ring.Hash(key)
	for try := range 2 {
		if try > 0 {
			c.Rewrite(key)
		}
		p, g := c.group(hash)
		if g == nil {
			return nil, false
		}
		// All that answer: the first ones may be those that are behind.
		everyone := func(g *Group, m mask) bool { return m == g.all() }
		r := c.round(p, g, &message.Request{Kind: message.Read, Hash: hash, Key: key}, everyone, c.opts.Timeout, flight.Context{})
		if ok = g.writes(r.atMax) && len(r.state) > 0; ok {
			enc = append(enc, r.state...)
		}
		r.release()
		if ok {
			break
		}
	}
	return enc, ok
}
