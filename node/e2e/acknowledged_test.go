//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// ledger is what a set test wrote, by what became of it.
type ledger struct {
	mu    sync.Mutex
	fates [senseless + 1][]string // keys
	bugs  []string
	// prefix of all keys.
	prefix string
}

func (l *ledger) book(key string, r reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fates[r.fate] = append(l.fates[r.fate], key)
	if r.fate == senseless || r.fate == definite && r.word != "STORED" {
		l.bugs = append(l.bugs, fmt.Sprintf("set %s: %s%s", key, r.word, r.why))
	}
}

// count is how many replies of that fate there are by now.
func (l *ledger) count(f fate) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.fates[f])
}

// insert writes keys that nobody wrote before, each once and never again, until ctx ends. The value
// of a key is made of it, see valueOf. pause is between two of a writer's.
func (l *ledger) insert(ctx context.Context, addrs []string, writers int, seed uint64, pause time.Duration) {
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			var conn *client
			for serial := 0; ctx.Err() == nil; serial++ {
				if conn == nil {
					if conn, _ = dial(addrs[rng.IntN(len(addrs))]); conn == nil {
						time.Sleep(20 * time.Millisecond)
						continue
					}
				}
				key := fmt.Sprintf("%sack-%d-%d", l.prefix, i, serial)
				r, ok := conn.do(command{verb: "set", key: key, value: valueOf(key)})
				l.book(key, r)
				if !ok {
					conn.close()
					conn = nil
				}
				time.Sleep(pause)
			}
			if conn != nil {
				conn.close()
			}
		})
	}
	wg.Wait()
}

func valueOf(key string) string { return "value of " + key }

// verify reads every key through every node: what was acknowledged is there, what was refused is not.
func (l *ledger) verify(t *testing.T, c *cluster) {
	t.Helper()
	t.Logf("%d writes acknowledged, %d not applied, %d unknown", len(l.fates[definite]), len(l.fates[notApplied]), len(l.fates[unknown]))
	for _, b := range l.bugs {
		t.Error("senseless:", b)
	}
	for _, n := range c.nodes {
		if _, ok := n.running(); !ok {
			continue
		}
		there, err := n.readBack(l.fates[definite])
		if err != nil {
			t.Errorf("node %s: %v", n.name, err)
			continue
		}
		missing, different := 0, 0
		for _, k := range l.fates[definite] {
			if v, ok := there[k]; !ok {
				missing++
			} else if v != valueOf(k) {
				different++
			}
		}
		if missing+different > 0 {
			t.Errorf("through node %s: %d acknowledged writes are missing, %d different", n.name, missing, different)
		}
		ghosts, err := n.readBack(l.fates[notApplied])
		if err != nil || len(ghosts) > 0 {
			t.Errorf("through node %s: %d writes are there that were said to be not applied (%v)", n.name, len(ghosts), err)
		}
		doubtful, err := n.readBack(l.fates[unknown])
		for k, v := range doubtful {
			if v != valueOf(k) {
				t.Errorf("through node %s: %s is %q", n.name, k, v)
			}
		}
		if err != nil {
			t.Errorf("node %s: %v", n.name, err)
		}
	}
}

// readBack reads keys through the node, many at once.
func (n *node) readBack(keys []string) (map[string]string, error) {
	all := map[string]string{}
	if len(keys) == 0 {
		return all, nil
	}
	cl, err := dial(n.client())
	if err != nil {
		return nil, err
	}
	defer cl.close()
	for at := 0; at < len(keys); at += 100 {
		part, err := cl.values(keys[at:min(at+100, len(keys))])
		if err != nil {
			return nil, err
		}
		for k, v := range part {
			all[k] = v
		}
	}
	return all, nil
}

// TestAcknowledgedWrites inserts keys while a node dies and comes back, again and again.
func TestAcknowledgedWrites(t *testing.T) {
	s := seed(t)
	c := start(t, 3)
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.client())
	}
	ctx, cancel := context.WithTimeout(t.Context(), seconds(t, 0.5))
	defer cancel()
	var l ledger
	done := make(chan error, 1)
	n := &nemesis{c: c, h: newHistory(), rng: rand.New(rand.NewPCG(s, 1<<20))}
	go func() {
		for ctx.Err() == nil {
			n.rest(ctx, 500*time.Millisecond, 1500*time.Millisecond)
			n.killOne(ctx)
			if err := c.revive(); err != nil {
				done <- err
				return
			}
			// One at a time: the cluster has to go on, and the next victim may be any.
			for _, n := range c.nodes {
				if err := n.awaitReady(slow); err != nil {
					done <- err
					return
				}
			}
		}
		done <- nil
	}()
	l.insert(ctx, addrs, 8, s, 0)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.again()
	l.verify(t, c)
	if len(l.fates[definite]) < 200 {
		t.Errorf("%d writes were acknowledged in all: the cluster hardly served, so this test shows nothing", len(l.fates[definite]))
	}
}
