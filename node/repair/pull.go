package repair

import (
	"sync"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

const (
	// maxPulls bounds the Hints that are worked on at once; more are Busy, and come again.
	maxPulls = 2
	// maxOffers bounds the records of one that are offered to the own replica at once. They are more than one
	// because they share a commit then, and few beside what clients write.
	maxOffers = 16
)

// Pull answers a Hints: it reads the keys from the peer that sent it, and takes over what is newer there
// than here, by the rules of every comparison. It returns at once; call is answered later.
func (r *Repairer) Pull(call *message.Call) {
	if r.pulls.Add(1) > maxPulls {
		r.pulls.Add(-1)
		call.Reply = message.Reply{Status: message.Busy}
		call.Completion.Done(call)
		return
	}
	call = call.Keep()
	go func() {
		answers, ok := r.pull(ring.NodeID(call.Key), call.Request.Items, time.Now().Add(call.Timeout))
		r.pulls.Add(-1)
		call.Reply = message.Reply{Status: message.OK, Items: answers}
		if !ok {
			call.Reply = message.Reply{Status: message.Invalid}
		}
		call.Completion.Done(call)
	}()
}

// pulled is one key on its way here.
type pulled struct {
	p      ring.Partition
	c      ring.Configuration
	key    []byte
	status message.Status
}

// pull returns an answer for each item; ok=false: they make no sense.
func (r *Repairer) pull(from ring.NodeID, items []byte, until time.Time) (answers []byte, ok bool) {
	var keys []*pulled
	var asked []byte
	for len(items) > 0 {
		it, rest, ok := message.NextItem(items)
		if !ok || len(keys) == message.MaxItems {
			return nil, false
		}
		x := &pulled{p: ring.PartitionOf(ring.Hash(it.Key), r.o.Partitions), key: it.Key}
		// By the epoch that this node knows: the peer answers only if it knows the same.
		x.c = r.o.Configuration(x.p)
		asked = message.AppendItem(asked, message.Item{Epoch: x.c.Epoch, Key: x.key})
		keys, items = append(keys, x), rest
	}
	if len(keys) == 0 || from == r.o.Self {
		return nil, false
	}
	reply := r.send(from, message.Request{Kind: message.ReadMany, Items: asked})
	var wait sync.WaitGroup
	room := make(chan struct{}, maxOffers)
	rest := reply.Items
	for _, x := range keys {
		a := message.Answer{Status: reply.Status}
		if reply.Status == message.OK {
			if a, rest, ok = message.NextAnswer(rest); !ok {
				return nil, false
			}
		}
		room <- struct{}{}
		wait.Go(func() {
			x.status = r.pullOne(from, x, a, until)
			<-room
		})
	}
	wait.Wait()
	for _, x := range keys {
		answers = message.AppendAnswer(answers, message.Answer{Status: x.status})
	}
	return answers, true
}

// pullOne takes over what a peer answered about a key, or has to say if it is asked for that key alone.
func (r *Repairer) pullOne(from ring.NodeID, x *pulled, a message.Answer, until time.Time) message.Status {
	if !time.Now().Before(until) || len(x.c.Next) > 0 {
		return message.Busy
	}
	enc, status := a.Record, a.Status
	if status == message.Busy { // too large to be one of many
		reply := r.send(from, message.Request{Kind: message.Read, Partition: x.p, Epoch: x.c.Epoch, Hash: ring.Hash(x.key), Key: x.key})
		enc, status = reply.Record, reply.Status
	}
	if status == message.NotReplica { // any more; others are
		var ok bool
		if enc, ok = r.o.Chosen(x.key); ok {
			status = message.OK
		}
	}
	switch {
	case status != message.OK:
		return status
	case len(enc) == 0:
		return message.OK // nothing there
	case record.Check(x.key, enc) != nil:
		return message.Corrupt
	}
	if err := r.offer(x.p, x.c, x.key, enc); err != nil {
		return message.Busy
	}
	return message.OK
}
