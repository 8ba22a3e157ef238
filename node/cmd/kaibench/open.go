package main

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// openQueue bounds the requests in flight on one connection of an open loop. When it is full the
// pacer waits; what it then sends late still counts from when it was due.
const openQueue = 4096

// stream is a connection under an open loop: the pacer sends, the stream's goroutine reads.
type stream struct {
	*client
	inFlight chan request // in the order sent
	waiting  atomic.Int64
	lost     atomic.Bool
}

// open sends requests when they are due, whether or not earlier ones were answered: arrivals form a
// Poisson process of Rate, dealt to the connections in turn. Since a request's latency counts from
// when it was due, a server that stalls is charged for all that should have been sent meanwhile (no
// coordinated omission).
//
// One thread does all the sending, because only nanosleep is precise enough: the Go runtime's
// timers wake up to a millisecond late when the process is otherwise idle.
func (l Load) open(clients []*client, w window) {
	streams := make([]*stream, len(clients))
	var wg sync.WaitGroup
	for i, c := range clients {
		c.base = w.base
		s := &stream{client: c, inFlight: make(chan request, openQueue)}
		c.nc.SetDeadline(w.base.Add(w.end + grace))
		streams[i] = s
		wg.Go(func() { s.read(w) })
	}
	l.pace(streams, w)
	for _, s := range streams {
		for s.waiting.Load() > 0 && !s.lost.Load() && time.Since(w.base) < w.end+grace {
			time.Sleep(time.Millisecond)
		}
	}
	for _, s := range streams {
		s.nc.SetReadDeadline(time.Now()) // nothing is missing any more, or never will come
	}
	wg.Wait()
	for _, s := range streams {
		close(s.inFlight)
		for q := range s.inFlight {
			s.count(w, q, broken)
		}
	}
}

// pace sends every request at its time, until the window ends.
func (l Load) pace(streams []*stream, w window) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.NumCPU() + 1)) // one for this thread: see sleep
	preciseSleep()
	gaps := rand.New(rand.NewPCG(l.Seed, 1<<32))
	mean := float64(time.Second) / l.Rate
	due, next := time.Duration(0), 0
	for {
		due += time.Duration(gaps.ExpFloat64() * mean)
		if due >= w.end {
			return
		}
		for now := time.Since(w.base); due > now; now = time.Since(w.base) {
			sleep(due - now) // a signal may end it early
		}
		streams[next].ask(due)
		next = (next + 1) % len(streams)
	}
}

// ask sends one request that was due at due.
func (s *stream) ask(due time.Duration) {
	if s.lost.Load() {
		s.tally.lost.Add(1)
		return
	}
	q := s.draw()
	q.due = due
	s.add(q)
	s.waiting.Add(1)
	s.inFlight <- q // before its bytes, so that read finds it when the reply is there
	if s.send() != nil {
		s.lost.Store(true)
	}
}

// read takes replies until the connection ends.
func (s *stream) read(w window) {
	defer s.lost.Store(true)
	for {
		if s.r == s.w {
			if err := s.fill(); err != nil {
				if s.waiting.Load() > 0 {
					s.tally.note(err)
				}
				return
			}
		}
		q := <-s.inFlight
		o, err := s.reply(q)
		s.count(w, q, o)
		s.waiting.Add(-1)
		if err != nil {
			s.tally.note(err)
			return
		}
	}
}
