package main

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"

	"kai/node/message"
	"kai/node/peer"
)

// nobody answers requests; there are none.
type nobody struct{}

// Send implements peer.Handler.
func (nobody) Send(call *message.Call) {
	call.Reply = message.Reply{Status: message.OK}
	call.Completion.Done(call)
}

// studyLinks makes the links that a node has among so many, both ends in this process: a node has one end of
// each of its own, and one of each of the others'. So what is measured is what one node has.
func studyLinks(f *figures, nodes int) error {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := peer.NewServer(peer.ServerOptions{Handler: nobody{}, Identity: func() peer.Identity {
		return peer.Identity{Node: "0000000000000001", ClusterID: "study"}
	}})
	running.Go(func() { _ = server.Serve(ctx, ln) }) // nil: it ends with ctx
	before := memory()
	links := make([]*peer.Client, nodes-1)
	for i, other := range makeNodes(nodes-1, 1) {
		id := peer.Identity{Node: other.ID, ClusterID: "study"}
		links[i] = peer.NewClient(peer.ClientOptions{Addr: ln.Addr().String(), Node: "0000000000000001", Identity: func() peer.Identity { return id }})
		running.Go(func() { _ = links[i].Run(ctx) }) // nil: it ends with ctx
	}
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		up := 0
		for _, l := range links {
			if l.Healthy() {
				up++
			}
		}
		if up == len(links) {
			break
		}
		if time.Since(began) > time.Minute {
			return fmt.Errorf("%d of %d links are up", up, len(links))
		}
	}
	time.Sleep(time.Second)
	f.add("links_memory", nodes, 0, memory()-before, "B")
	const watch = 8 * time.Second
	used, sent := cpu(), frames(links)
	time.Sleep(watch)
	f.add("links_cpu", nodes, 0, (cpu()-used)/watch.Seconds(), "cores")
	// A ping is answered by a frame as large, each in a packet with 40 bytes of headers, and a node sends
	// as many pongs as pings.
	f.add("links_idle", nodes, 0, 2*(frames(links)-sent)*(20+40)/watch.Seconds(), "B/s a node")
	f.add("links_flush", nodes, 0, best(func() {
		for range 1000 {
			for _, l := range links {
				l.Flush()
			}
		}
	})/1000*1e6, "µs")
	return nil
}

func frames(links []*peer.Client) (sent float64) {
	for _, l := range links {
		sent += float64(l.Stats().FramesOut)
	}
	return sent
}

// memory is what this process has in use: heap and stacks.
func memory() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// cpu is the processor time this process has used, in seconds.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
