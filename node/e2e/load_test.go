//go:build linux

package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// load is clients at work while a test does something to the cluster: some run all commands on a few keys,
// whose history is checked, others insert keys that must all be there in the end.
type load struct {
	*workload
	ledger ledger
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// writers insert keys in a load.
const writers = 4

// load starts clients on the nodes. Keys are told apart by a number, so that one cluster may bear several
// loads, one after the other.
func (c *cluster) load(seed uint64, on ...*node) *load {
	c.t.Helper()
	var addrs []string
	for _, n := range on {
		addrs = append(addrs, n.client())
	}
	return c.loadAt(seed, addrs...)
}

// loadAt is load, on addresses: a load balancer's.
func (c *cluster) loadAt(seed uint64, addrs ...string) *load {
	c.t.Helper()
	prefix := fmt.Sprintf("load-%d-", c.loads.Add(1))
	l := &load{workload: &workload{clients: 8, keys: 2, pause: 6 * time.Millisecond, turn: 2 * time.Second, h: newHistory(), seed: seed, prefix: prefix}}
	l.ledger.prefix = prefix
	l.addrs = addrs
	ctx, cancel := context.WithCancel(c.t.Context())
	l.cancel = cancel
	l.done.Go(func() { l.workload.run(ctx) })
	l.done.Go(func() { l.ledger.insert(ctx, l.addrs, writers, seed, 10*time.Millisecond) })
	c.t.Cleanup(l.stop)
	return l
}

// stop ends the clients and waits for their last replies.
func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

// enough definite replies, of commands and of inserts, for a load to show something.
const enough = 200

// verify lets the clients go on until they have heard enough, stops them, and checks all they heard,
// through every node that serves: their histories fit an order, all that was acknowledged is there.
func (l *load) verify(t *testing.T, c *cluster) {
	t.Helper()
	eventually(t, slow, "the clients have heard enough to show something", func() error {
		if ops, sets := l.h.count(definite), l.ledger.count(definite); ops < enough || sets < enough {
			return fmt.Errorf("%d and %d definite replies, and %d of each are wanted: the cluster hardly served", ops, sets, enough)
		}
		return nil
	})
	l.stop()
	c.mustServe()
	l.addrs = nil
	for _, n := range c.live() {
		l.addrs = append(l.addrs, n.client())
	}
	answered, want := l.readAll(), len(l.h.byKey())*len(l.addrs)
	l.h.verify(t)
	if answered < want {
		t.Errorf("%d of %d reads were answered", answered, want)
	}
	l.ledger.verify(t, c)
}
