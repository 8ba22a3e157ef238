package membership

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kai/node/ring"
)

// register is a registry in memory, out of order for a while.
type register struct {
	mu      sync.Mutex
	founded *ring.Founding
	calls   int
	fails   int // the first calls
}

func (r *register) call() error {
	time.Sleep(30 * time.Millisecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls++; r.calls <= r.fails {
		return errors.New("the bucket is out of order")
	}
	return nil
}

func (r *register) Ground(context.Context) (g Ground, err error) {
	if err := r.call(); err != nil {
		return g, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.founded != nil {
		g = Ground{Generation: 1, Founded: r.founded}
	}
	return g, nil
}

func (r *register) Claim(_ context.Context, f ring.Founding) (ring.Founding, error) {
	err := r.call()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.founded == nil {
		r.founded = &f
	}
	if r.calls == r.fails+3 {
		err = errors.New("the answer is lost")
	}
	return *r.founded, err
}

// Two halves of a group that are cut off from each other could found a cluster each: one does, and the other joins it when the network is whole.
func TestRegistryAmongHalves(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			defer w.close()
			r := &register{fails: int(seed) * 3}
			w.seeds = []string{nodeAddr(1), nodeAddr(2), nodeAddr(3), nodeAddr(4)}
			half := map[string]bool{nodeAddr(1): true, nodeAddr(2): true}
			w.net.set(func() { w.net.cut = func(a, b string) bool { return half[a] != half[b] } })
			for i := 1; i <= 4; i++ {
				w.start(i, nodeAddr(i), &disk{}, func(o *Options) { o.Expect, o.Registry = 2, r })
			}
			first := func() int {
				n := 0
				for _, node := range w.nodes {
					if node.cluster() != "" {
						n++
					}
				}
				return n
			}
			w.eventually(3*time.Minute, "one half founds a cluster", func() bool { return first() == 2 })
			time.Sleep(time.Minute)
			if first() != 2 {
				t.Fatalf("seed %d: %d nodes are founded", seed, first())
			}
			w.net.set(func() { w.net.cut = func(string, string) bool { return false } })
			w.eventually(3*time.Minute, "the other joins it", func() bool { return first() == 4 })
			for _, n := range w.nodes {
				if n.cluster() != r.founded.ClusterID {
					t.Errorf("seed %d: node %s is in %s, the registry has %s", seed, n.id, n.cluster(), r.founded.ClusterID)
				}
			}
		})
	}
}
