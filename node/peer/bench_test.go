package peer

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"kai/node/message"
)

// caller waits for one call at a time.
type caller struct {
	call message.Call
	done chan struct{}
}

func (c *caller) Done(*message.Call) { c.done <- struct{}{} }

// benchmarkLink shares b.N calls among callers.
func benchmarkLink(b *testing.B, callers int, q message.Request, hook bool) {
	st := newStore()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	r := start(b, ClientOptions{}, ServerOptions{Handler: st}, false)
	if hook {
		st.hold, st.release = r.server.Hold, r.server.Release
	}
	go st.commit(ctx)
	q.Timeout = time.Minute
	before, mine := r.server.Stats(), r.client.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			c := &caller{done: make(chan struct{}, 1)}
			for range b.N/callers + min(1, max(0, b.N%callers-i)) {
				c.call.Request = q
				c.call.Completion = c
				r.client.Send(&c.call)
				r.client.Flush()
				<-c.done
			}
		})
	}
	all.Wait()
	b.StopTimer()
	s := r.server.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64(s.Writes-before.Writes)/float64(b.N), "replywrites/op")
	b.ReportMetric(float64(r.client.Stats().Writes-mine.Writes)/float64(b.N), "writes/op")
}

func BenchmarkRead(b *testing.B) {
	for _, n := range []int{1, 32, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkLink(b, n, read("a key of thirty bytes, or so.."), false) })
	}
}

// BenchmarkAccept compares replies pushed out by the connection's writer with those pushed out by
// Server.Flush from the committer.
func BenchmarkAccept(b *testing.B) {
	for _, hook := range []bool{false, true} {
		for _, n := range []int{1, 32, 256} {
			b.Run(fmt.Sprintf("hook=%v/%d", hook, n), func(b *testing.B) { benchmarkLink(b, n, accept("a key of thirty bytes, or so.."), hook) })
		}
	}
}

// BenchmarkPending compares the table of pending calls with a map, at a depth of 100 calls.
func BenchmarkPending(b *testing.B) {
	call := new(message.Call)
	b.Run("slots", func(b *testing.B) {
		var mu sync.Mutex
		var t slots
		var ids [100]uint64
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if s := t.claim(ids[i%100]); s != nil {
				mu.Lock()
				t.untake(ids[i%100])
				mu.Unlock()
			}
			mu.Lock()
			s, id := t.take(maxSlots)
			s.remember(call, 0, 0)
			s.id.Store(id)
			mu.Unlock()
			ids[i%100] = id
		}
	})
	b.Run("map", func(b *testing.B) {
		var mu sync.Mutex
		t := map[uint64]*message.Call{}
		b.ReportAllocs()
		for id := uint64(0); b.Loop(); id++ {
			mu.Lock()
			if t[id-100] != nil {
				delete(t, id-100)
			}
			mu.Unlock()
			mu.Lock()
			t[id] = call
			mu.Unlock()
		}
	})
}
