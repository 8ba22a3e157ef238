package main

import (
	"fmt"
	"sync"

	"kai/node/message"
	"kai/node/ring"
)

func nodeID(s string) ring.NodeID { return ring.NodeID(s) }

// stream is what gRPC and DRPC have in common: whole messages, in order, both ways.
type stream interface {
	send(b []byte) error
	receive() ([]byte, error)
}

// multiplex lets n callers share one stream: the id of a frame is the caller's index.
func multiplex(s stream, n int) []exchange {
	var mu sync.Mutex // neither allows two sends at once
	dones := make([]chan message.Status, n)
	for i := range dones {
		dones[i] = make(chan message.Status, 1)
	}
	go func() {
		var r message.Reply
		for {
			b, err := s.receive()
			if err != nil {
				return
			}
			id, err := message.ParseReply(b, key, &r)
			if err != nil {
				panic(err)
			}
			dones[id] <- r.Status
		}
	}()
	callers := make([]exchange, n)
	for i := range callers {
		var buf []byte
		callers[i] = func(q *message.Request) {
			buf = message.AppendRequest(buf[:0], uint64(i), q)
			mu.Lock()
			err := s.send(buf)
			mu.Unlock()
			if err != nil {
				panic(err)
			}
			if st := <-dones[i]; st != message.OK {
				panic(fmt.Sprint(st))
			}
		}
	}
	return callers
}

// serve answers requests in order, on the goroutine that reads them.
func serve(s stream) error {
	var q message.Request
	var r message.Reply
	var out []byte
	for {
		b, err := s.receive()
		if err != nil {
			return err
		}
		id, err := message.ParseRequest(b, &q)
		if err != nil {
			return err
		}
		rec := r.Record
		r = message.Reply{Record: rec[:0]}
		reply(&q, &r)
		out = message.AppendReply(out[:0], id, &r)
		if err := s.send(out); err != nil {
			return err
		}
	}
}
