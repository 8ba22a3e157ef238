//go:build linux

package e2e

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestHotCounter has 64 clients, spread over three nodes, increment one key: the sum is exact, and the
// clients are not much slower than with a key each.
func TestHotCounter(t *testing.T) {
	const clients, each = 64, 1563 // 100,032 in all
	c := start(t, 3)
	count := func(keyOf func(client int) string) (perSecond float64) {
		t.Helper()
		seen := map[string]bool{}
		for i := range clients {
			if key := keyOf(i); !seen[key] {
				seen[key] = true
				if r, _ := c.client(0).do(command{verb: "set", key: key, value: "0"}); r.word != "STORED" {
					t.Fatalf("set %s: %s%s", key, r.word, r.why)
				}
			}
		}
		began := time.Now()
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				cl, err := dial(c.nodes[i%3].client())
				if err != nil {
					t.Error(err)
					return
				}
				defer cl.close()
				for range each {
					if r, _ := cl.do(command{verb: "incr", key: keyOf(i), delta: 1}); r.fate != definite {
						t.Errorf("incr %s: %s", keyOf(i), r.why)
						return
					}
				}
			})
		}
		wg.Wait()
		return clients * each / time.Since(began).Seconds()
	}
	spread := count(func(i int) string { return fmt.Sprintf("own-%d", i) })
	hot := count(func(int) string { return "hot" })
	t.Logf("%.0f increments a second of one key, %.0f of %d keys: %.2f ×", hot, spread, clients, hot/spread)
	for _, n := range c.nodes {
		there, err := n.readBack([]string{"hot"})
		if err != nil || there["hot"] != strconv.Itoa(clients*each) {
			t.Errorf("through node %s: %q increments of %d, %v", n.name, there["hot"], clients*each, err)
		}
	}
	if hot < spread/3 {
		t.Error("a hot key is slower than a third of distinct keys")
	}
}
