package membership

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestStudyGossip measures what gossip costs in clusters of many sizes, for node/cmd/kaistudy: STUDY is
// the file that the figures are appended to, SIZES the numbers of nodes (default "3 10 30 100 300": of 1,000 it
// would take hours, all on one machine).
// All nodes run, memberlist included, in virtual time over the in-memory network (1 ms, nothing lost).
func TestStudyGossip(t *testing.T) {
	path := os.Getenv("STUDY")
	if path == "" {
		t.Skip("STUDY names no file for the figures")
	}
	sizes := os.Getenv("SIZES")
	if sizes == "" {
		sizes = "3 10 30 100 300"
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := out.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, size := range strings.Fields(sizes) {
		n, err := strconv.Atoi(size)
		if err != nil || n < 3 {
			t.Fatalf("SIZES: %q", size)
		}
		began := time.Now()
		synctest.Test(t, func(t *testing.T) {
			studyGossip(t, n, func(measure string, value float64, unit string) {
				if _, err := fmt.Fprintf(out, "%s,%d,0,%.4g,%s\n", measure, n, value, unit); err != nil {
					t.Error(err)
				}
			})
		})
		t.Logf("%d nodes: %v", n, time.Since(began))
		runtime.GC()
	}
}

func studyGossip(t *testing.T, n int, figure func(measure string, value float64, unit string)) {
	w := newWorld(t, 1)
	defer w.close()
	addr := func(i int) string { return fmt.Sprintf("10.1.%d.%d:7000", i/250, i%250+1) }
	for i := range 3 {
		w.seeds = append(w.seeds, addr(i))
	}
	start := func(i int) {
		w.start(i, addr(i), &disk{}, func(o *Options) { o.Partitions = 1024 })
	}
	// seen reports that all but those of out hold want nodes for alive.
	seen := func(want int, out *node) func() bool {
		return func() bool {
			for _, node := range w.nodes {
				if node == out {
					continue
				}
				alive := 0
				for _, o := range node.View().Nodes {
					if o.Alive {
						alive++
					}
				}
				if alive != want || node.cluster() == "" {
					return false
				}
			}
			return true
		}
	}
	// sent is the bytes since the last call, 28 of headers with each packet and 40 with each stream.
	var last int64
	sent := func() float64 {
		now := w.net.packetBytes.Load() + 28*w.net.packets.Load() + w.net.streamBytes.Load() + 40*w.net.streams.Load()
		defer func() { last = now }()
		return float64(now - last)
	}
	for i := range 3 {
		start(i)
	}
	w.eventually(time.Minute, "founded", one(w.nodes...))
	began := time.Now()
	for i := 3; i < n; i++ { // ten a second, as a group that grows by large steps
		start(i)
		time.Sleep(100 * time.Millisecond)
	}
	w.eventually(10*time.Minute, "all see all", seen(n, nil))
	figure("gossip_grow", time.Since(began).Seconds()-float64(n-3)/10, "s after the last of ten starts a second")
	time.Sleep(30 * time.Second) // what is still to be said
	sent()
	const idle = 200 * time.Second // two rounds of whole states at 1,000 nodes
	time.Sleep(idle)
	rest := sent() / idle.Seconds()
	figure("gossip_idle", rest/float64(n), "B/s a node")

	const watch = 20 * time.Second
	began = time.Now()
	start(n)
	w.eventually(time.Minute, "all see the new one", seen(n+1, nil))
	figure("gossip_join", time.Since(began).Seconds(), "s until all see a new node")
	time.Sleep(watch - time.Since(began))
	figure("gossip_join_bytes", max(0, sent()-rest*watch.Seconds())/float64(n), "B a node for one that joins")

	dead := w.nodes[n/2]
	began = time.Now()
	dead.crash()
	w.eventually(time.Minute, "all miss the dead one", seen(n, dead))
	figure("gossip_death", time.Since(began).Seconds(), "s until all miss a dead node")
}
