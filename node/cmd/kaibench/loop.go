package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// window is the time of a run: from base on, measured between begin and end.
type window struct {
	base       time.Time
	begin, end time.Duration
}

func newWindow(warmup, duration time.Duration) window {
	return window{base: time.Now(), begin: warmup, end: warmup + duration}
}

// closed runs a closed loop on every connection: send Depth requests with one write, await all
// their replies, again. It returns after the window's end, when the last replies are in.
func (l Load) closed(clients []*client, w window) {
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() { c.closedLoop(l.Depth, w) })
	}
	wg.Wait()
}

func (c *client) closedLoop(depth int, w window) {
	c.base = w.base
	batch := make([]request, depth)
	deadline := w.base.Add(w.end + grace)
	c.nc.SetDeadline(deadline)
	for now := time.Since(w.base); now < w.end; now = time.Since(w.base) {
		for i := range batch {
			batch[i] = c.draw()
			batch[i].due = now
			c.add(batch[i])
		}
		err := c.send()
		for i, q := range batch {
			if err != nil {
				c.count(w, q, broken)
				continue
			}
			var o outcome
			o, err = c.reply(q)
			if err != nil {
				c.tally.note(err)
			}
			c.count(w, batch[i], o)
		}
		if err != nil && !c.again(deadline) {
			return
		}
	}
}

// again replaces a broken connection, trying until the server is back or the deadline has passed.
func (c *client) again(deadline time.Time) bool {
	c.nc.Close()
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	for !c.gone.Load() && time.Now().Before(deadline.Add(-grace)) {
		if err := c.connect(ctx); err == nil {
			c.nc.SetDeadline(deadline)
			return true
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}

// preload stores every key once, each connection its share, and verifies that it was stored.
func (l Load) preload(ctx context.Context, clients []*client) error {
	errs := make(chan error, len(clients))
	for i, c := range clients {
		go func() { errs <- c.storeAll(ctx, i, len(clients)) }()
	}
	var first error
	for range clients {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// storeAll stores the keys from, from+step, … A refused key is tried again: a cluster that has just
// come up may need a moment.
func (c *client) storeAll(ctx context.Context, from, step int) error {
	const batch, tries = 32, 20
	var todo, again []request
	for k := from; k < c.keys; k += step {
		todo = append(todo, request{key: uint32(k), set: true})
	}
	for try := 0; len(todo) > 0; try++ {
		again = again[:0]
		for at := 0; at < len(todo); at += batch {
			part := todo[at:min(at+batch, len(todo))]
			c.nc.SetDeadline(time.Now().Add(2 * grace))
			for _, q := range part {
				c.add(q)
			}
			if err := c.send(); err != nil {
				return err
			}
			for _, q := range part {
				switch o, err := c.reply(q); {
				case err != nil:
					return err
				case o != stored:
					again = append(again, q)
				}
			}
		}
		if len(again) > 0 && (try == tries || ctx.Err() != nil) {
			return fmt.Errorf("%s: %d keys were refused %d times", c.target, len(again), try+1)
		}
		if len(again) > 0 {
			time.Sleep(250 * time.Millisecond)
		}
		todo = append(todo[:0], again...)
	}
	return nil
}
