//go:build linux

package e2e

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// records is how many records the tests that move data load first: RECORDS, or few enough for make e2e.
func records(t *testing.T) int {
	t.Helper()
	v := os.Getenv("RECORDS")
	if v == "" {
		return 30_000
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1000 {
		t.Fatalf("RECORDS=%q is not a number from 1000 on", v)
	}
	return n
}

func recordKey(i int) string { return fmt.Sprintf("record-%d", i) }

// recordValue is 100 bytes made of the key.
func recordValue(i int) string {
	return strings.Repeat(fmt.Sprintf("%010d", i), 10)
}

const (
	loaders  = 4   // connections of loadRecords and checkRecords
	pipeline = 100 // commands on their way on each
)

// loadRecords stores records 0 … count-1, pipelined, through all nodes; what is refused is sent again.
func (c *cluster) loadRecords(count int) {
	c.t.Helper()
	began := time.Now()
	c.shareOut(count, func(cl *client, batch []int) error { return cl.storeAll(batch) })
	c.t.Logf("%d records loaded in %.1f s, %.0f a second", count, time.Since(began).Seconds(), float64(count)/time.Since(began).Seconds())
}

// checkRecords reads them all back, and fails the test unless each is there as it was stored.
func (c *cluster) checkRecords(count int) {
	c.t.Helper()
	began := time.Now()
	var wrong atomic.Int64
	c.shareOut(count, func(cl *client, batch []int) error {
		keys := make([]string, len(batch))
		for at, i := range batch {
			keys[at] = recordKey(i)
		}
		found, err := cl.values(keys)
		if err != nil {
			return err
		}
		for at, i := range batch {
			if found[keys[at]] != recordValue(i) {
				wrong.Add(1)
			}
		}
		return nil
	})
	if wrong.Load() > 0 {
		c.t.Errorf("%d of %d records are missing or different", wrong.Load(), count)
	}
	c.t.Logf("all %d records checked in %.1f s", count, time.Since(began).Seconds())
}

// shareOut has loaders clients, on all nodes that run, do something to all records, in batches. A batch that
// fails is tried again.
func (c *cluster) shareOut(count int, do func(*client, []int) error) {
	c.t.Helper()
	live := c.live()
	var next atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, loaders)
	for k := range loaders {
		wg.Go(func() {
			cl, err := dial(live[k%len(live)].client())
			for err == nil {
				from := int(next.Add(pipeline)) - pipeline
				if from >= count {
					cl.close()
					return
				}
				var batch []int
				for i := from; i < min(from+pipeline, count); i++ {
					batch = append(batch, i)
				}
				for end := time.Now().Add(slow); ; time.Sleep(100 * time.Millisecond) {
					if err = do(cl, batch); err == nil || time.Now().After(end) {
						break
					}
					cl.close() // what is in it still is nobody's
					if cl, err = dial(live[k%len(live)].client()); err != nil {
						break
					}
				}
			}
			failed <- err
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		c.t.Fatal(err)
	}
}

// storeAll stores records with all commands on their way at once.
func (c *client) storeAll(batch []int) error {
	if err := c.nc.SetDeadline(time.Now().Add(5 * patience)); err != nil {
		return err
	}
	out := bufio.NewWriter(c.nc)
	for _, i := range batch {
		fmt.Fprintf(out, "set %s 0 0 100\r\n%s\r\n", recordKey(i), recordValue(i))
	}
	if err := out.Flush(); err != nil {
		return err
	}
	var failed error
	for range batch {
		line, err := c.line()
		if err != nil {
			return err
		}
		if line != "STORED" {
			failed = errors.New(line)
		}
	}
	return failed
}

// probe is clients that get records at a fixed pace, and remember how long each took.
type probe struct {
	addrs atomic.Pointer[[]string]
	mu    sync.Mutex
	gets  []timed
	stop  chan struct{}
	done  sync.WaitGroup
}

// timed is one get.
type timed struct {
	began time.Time
	took  time.Duration
}

// probes get a record every probeEvery each, if the last one is answered by then: 500 a second in all.
const (
	probes     = 8
	probeEvery = 16 * time.Millisecond
)

// probe starts one. Like what stands behind a load balancer, each get is from any of the nodes that it was told of last.
func (c *cluster) probe(count int) *probe {
	p := &probe{stop: make(chan struct{})}
	p.on(c.live())
	for k := range probes {
		p.done.Go(func() {
			conns := map[string]*client{}
			defer func() {
				for _, cl := range conns {
					cl.close()
				}
			}()
			tick := time.NewTicker(probeEvery)
			defer tick.Stop()
			for i := k; ; i = (i + 7919) % count {
				select {
				case <-p.stop:
					return
				case <-tick.C:
				}
				p.get(conns, i)
			}
		})
	}
	c.t.Cleanup(p.end)
	return p
}

// get gets one record. Connections that cannot be made are a load balancer's to avoid, and do not count.
func (p *probe) get(conns map[string]*client, i int) {
	addrs := *p.addrs.Load()
	addr := addrs[rand.IntN(len(addrs))]
	cl := conns[addr]
	if cl == nil {
		if cl, _ = dial(addr); cl == nil {
			return
		}
		conns[addr] = cl
	}
	began := time.Now()
	if _, ok := cl.do(command{verb: "get", key: recordKey(i)}); !ok {
		cl.close()
		delete(conns, addr)
	}
	p.mu.Lock()
	p.gets = append(p.gets, timed{began, time.Since(began)})
	p.mu.Unlock()
}

// on has the gets go to these nodes from now on.
func (p *probe) on(nodes []*node) {
	addrs := make([]string, len(nodes))
	for i, n := range nodes {
		addrs[i] = n.client()
	}
	p.addrs.Store(&addrs)
}

func (p *probe) end() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	p.done.Wait()
}

// lap is the 99th percentile of the gets since the last lap, and their number.
func (p *probe) lap() (p99 time.Duration, gets int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gets = len(p.gets)
	if gets > 0 {
		slices.SortFunc(p.gets, func(a, b timed) int { return cmp.Compare(a.took, b.took) })
		p99 = p.gets[gets*99/100].took
	}
	p.gets = nil
	return p99, gets
}

// within leaves out of the lap what was begun before or after.
func (p *probe) within(from, to time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gets = slices.DeleteFunc(p.gets, func(g timed) bool { return g.began.Before(from) || g.began.After(to) })
}

// beside tells of the lap that ends now, compared with one before.
func (p *probe) beside(calm time.Duration) string {
	p99, gets := p.lap()
	return fmt.Sprintf("p99 %.1f ms of %d gets, %.1f x the %.1f ms before", p99.Seconds()*1e3, gets, float64(p99)/float64(calm), calm.Seconds()*1e3)
}

// tally is the partitions that nodes hold, by id, and what they have taken over, by metric.
type tally struct {
	held  map[string]int
	moved map[string]int64
}

// tally sums up over the nodes that run.
func (c *cluster) tally() tally {
	s := tally{held: map[string]int{}, moved: map[string]int64{}}
	for _, n := range c.live() {
		if st, err := n.status(); err == nil {
			for _, o := range st.Nodes {
				s.held[o.ID] = o.Partitions
			}
		}
		all, _ := n.metrics("kai_transfer")
		for name, v := range all {
			s.moved[name+" of "+n.name] = v
		}
	}
	return s
}

// since says what has moved: the replicas that had to (what nodes hold more than before), and those, records
// and bytes that did, if the nodes tell. took is how long it took.
func (s tally) since(before tally, took time.Duration) string {
	had := 0
	for id, n := range s.held {
		had += max(0, n-before.held[id])
	}
	sums := map[string]int64{}
	for name, v := range s.moved {
		was := before.moved[name]
		if v < was {
			was = 0 // it was started again
		}
		metric, _, _ := strings.Cut(name, " of ")
		sums[metric] += v - was
	}
	text := fmt.Sprintf("%d replicas changed hands", had)
	for _, metric := range slices.Sorted(maps.Keys(sums)) {
		text += fmt.Sprintf(", %s %d", metric, sums[metric])
		if strings.Contains(metric, "bytes") {
			text += fmt.Sprintf(" (%.1f MB/s)", float64(sums[metric])/1e6/took.Seconds())
		}
	}
	return text
}
