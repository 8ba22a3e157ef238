//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// workload is clients that run all commands on a few keys.
type workload struct {
	addrs   []string
	clients int
	keys    int           // at a time, of text and of counters each
	pause   time.Duration // mean, between two commands of a client
	// turn is how long keys are in use before fresh ones are: an operation of unknown fate stays open
	// for ever, and each that piles up on a key doubles the orders a checker may have to try.
	turn time.Duration
	h    *history
	seed uint64
	// prefix of all keys; a history begins with keys that are absent.
	prefix string
}

// run runs the clients until ctx ends and their last commands have returned.
func (w *workload) run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range w.clients {
		wg.Go(func() {
			a := actor{workload: w, rng: rand.New(rand.NewPCG(w.seed, uint64(i))), number: i, tokens: map[string]uint64{}}
			a.run(ctx)
		})
	}
	wg.Wait()
}

// actor is one client: one connection at a time, to a node chosen at random.
type actor struct {
	*workload
	rng    *rand.Rand
	number int // of the actor, for values that no other writes
	serial int
	id     int
	tokens map[string]uint64 // cas tokens seen last
	conn   *client
}

func (a *actor) run(ctx context.Context) {
	a.id = a.h.identity()
	for ctx.Err() == nil {
		if a.conn == nil || a.rng.IntN(50) == 0 {
			a.reconnect()
		}
		if a.conn == nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		q := a.draw()
		call := a.h.now()
		r, ok := a.conn.do(q)
		a.h.add(a.id, q, r, call)
		if r.word == "VALUE" && q.verb == "gets" {
			a.tokens[q.key] = r.token
		}
		if !ok {
			a.conn.close()
			a.conn = nil
		}
		if r.fate == unknown {
			a.id = a.h.identity()
		}
		time.Sleep(time.Duration(a.rng.ExpFloat64() * float64(a.pause)))
	}
	if a.conn != nil {
		a.conn.close()
	}
}

// reconnect leaves conn nil when the node does not answer.
func (a *actor) reconnect() {
	if a.conn != nil {
		a.conn.close()
	}
	a.conn, _ = dial(a.addrs[a.rng.IntN(len(a.addrs))])
}

// draw picks a command. Counters and text have keys of their own: what memcached makes of a number
// with text behind it is nobody's business here.
func (a *actor) draw() command {
	a.serial++
	q := command{key: fmt.Sprintf("%s%d-%d", a.prefix, a.h.now()/int64(a.turn), a.rng.IntN(a.keys))}
	if a.rng.IntN(3) == 0 {
		q.key = "number-" + q.key
		q.verb = pick(a.rng, "get", "gets", "set", "cas", "incr", "incr", "decr", "delete", "add")
		q.value = fmt.Sprint(a.number<<20 + a.serial)
		if q.delta = a.rng.Uint64N(100); a.rng.IntN(4) == 0 {
			q.delta = 1 << 40
		}
	} else {
		q.key = "text-" + q.key
		q.verb = pick(a.rng, "get", "get", "gets", "gets", "set", "set", "add", "replace", "append", "append", "prepend", "cas", "cas", "delete", "touch", "incr")
		q.value = fmt.Sprintf("<%d.%d>", a.number, a.serial)
	}
	if q.verb == "cas" {
		q.token = a.tokens[q.key]
		if q.token == 0 {
			q.verb = "gets"
		}
	}
	return q
}

func pick(rng *rand.Rand, words ...string) string { return words[rng.IntN(len(words))] }

// readAll reads every key of the history once through every node, as part of the history: what was
// acknowledged long ago must still be there. It returns how many reads were answered.
func (w *workload) readAll() (answered int) {
	w.h.mu.Lock()
	keys := w.h.byKey()
	w.h.mu.Unlock()
	for _, addr := range w.addrs {
		id := w.h.identity()
		var conn *client
		for key := range keys {
			if conn == nil {
				var err error
				if conn, err = dial(addr); err != nil {
					break
				}
			}
			q := command{verb: "gets", key: key}
			call := w.h.now()
			r, ok := conn.do(q)
			w.h.add(id, q, r, call)
			if r.fate == definite {
				answered++
			}
			if !ok {
				conn.close()
				conn, id = nil, w.h.identity()
			}
		}
		if conn != nil {
			conn.close()
		}
	}
	return answered
}
