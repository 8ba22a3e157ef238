package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"kai/node/message"
	"kai/node/peer"
)

type handler struct{}

func (handler) Send(call *message.Call) {
	reply(&call.Request, &call.Reply)
	call.Completion.Done(call)
}

type waiter struct {
	call message.Call
	done chan message.Status
}

func (w *waiter) Done(call *message.Call) { w.done <- call.Reply.Status }

func openOwn(n int) ([]exchange, func(), error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	id := func(node string) func() peer.Identity {
		return func() peer.Identity { return peer.Identity{Node: nodeID(node), ClusterID: "c"} }
	}
	server := peer.NewServer(peer.ServerOptions{Handler: handler{}, Identity: id("server")})
	client := peer.NewClient(peer.ClientOptions{Addr: ln.Addr().String(), Node: "server", Identity: id("client")})
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = server.Serve(ctx, ln) })
	all.Go(func() { _ = client.Run(ctx) })
	stop := func() { cancel(); all.Wait() }
	for range 1000 {
		if client.Healthy() {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !client.Healthy() {
		stop()
		return nil, nil, errors.New("no link")
	}
	callers := make([]exchange, n)
	for i := range callers {
		w := &waiter{done: make(chan message.Status, 1)}
		callers[i] = func(q *message.Request) {
			w.call.Request, w.call.Completion = *q, w
			client.Send(&w.call)
			client.Flush()
			if s := <-w.done; s != message.OK {
				panic(s)
			}
		}
	}
	return callers, stop, nil
}
