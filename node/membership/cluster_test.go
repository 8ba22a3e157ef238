package membership

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"kai/node/ring"
)

// disk is a FoundingStore that outlives its node.
type disk struct {
	mu    sync.Mutex
	state FoundingState
	boot  uint64
	// fail, if set, is asked at each save: before it is durable, or after with late.
	fail func() error
	late bool
}

func (d *disk) Load() (FoundingState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state, nil
}

func (d *disk) Save(s FoundingState) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail == nil {
		d.state = s
		return nil
	}
	late := d.late
	d.late = false
	err := d.fail()
	if err == nil || late {
		d.state = s
	}
	return err
}

// logs collects log lines.
type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) has(words ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// world is a simulated network with nodes.
type world struct {
	t     *testing.T
	net   *simnet
	seeds []string
	nodes []*node
}

type node struct {
	*Membership
	world *world
	id    ring.NodeID
	addr  string
	disk  *disk
	logs  *logs
	stop  context.CancelFunc
	ended chan struct{}
	err   error // of Run; read after ended
}

func nodeID(i int) ring.NodeID { return ring.NodeID(fmt.Sprintf("%016x", i)) }
func nodeAddr(i int) string    { return fmt.Sprintf("10.0.0.%d:7000", i) }

func newWorld(t *testing.T, seed uint64) *world {
	return &world{t: t, net: newSimnet(seed)}
}

// options for node i with everything as it mostly is.
func (w *world) options(i int, addr string, d *disk, l io.Writer) Options {
	d.boot++
	return Options{
		Self:    ring.NodeInfo{Node: ring.Node{ID: nodeID(i), Zone: "z"}, PeerAddr: addr, AdminAddr: addr, Version: "test", Boot: d.boot},
		Cluster: "kai", Transport: w.net.transport(addr), Store: d, Expect: 3,
		Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 64, VNodes: 16,
		Logger: slog.New(slog.NewTextHandler(l, nil)),
		Find:   func(context.Context) ([]string, error) { return w.seeds, nil },
	}
}

// start starts node i at addr on the disk.
func (w *world) start(i int, addr string, d *disk, change func(*Options)) *node {
	w.t.Helper()
	n := &node{world: w, id: nodeID(i), addr: addr, disk: d, logs: &logs{}, ended: make(chan struct{})}
	o := w.options(i, addr, d, n.logs)
	if change != nil {
		change(&o)
	}
	m, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	n.Membership = m
	var ctx context.Context
	ctx, n.stop = context.WithCancel(context.Background())
	go func() {
		n.err = m.Run(ctx)
		close(n.ended)
	}()
	w.nodes = append(w.nodes, n)
	return n
}

// crash cuts the node off for good and ends it: nobody hears a good-bye.
func (n *node) crash() {
	net := n.world.net
	net.set(func() {
		before := net.cut
		dead := n.addr
		net.cut = func(a, b string) bool { return a == dead || b == dead || before(a, b) }
	})
	n.stop()
	<-n.ended
	net.set(func() { delete(net.hosts, n.addr) })
}

// close stops all nodes, and waits for memberlist's stragglers, which end by their deadlines: in a
// bubble time stands still once the test function returns.
func (w *world) close() {
	defer time.Sleep(time.Minute)
	for _, n := range w.nodes {
		n.stop()
	}
	for _, n := range w.nodes {
		<-n.ended
	}
}

// clusterID of a node; "" before founding.
func (n *node) cluster() string {
	f, _ := n.Founded()
	return f.ClusterID
}

// alive lists the ids of the nodes the view holds for alive.
func (n *node) alive() string {
	var ids []string
	for _, o := range n.View().Nodes {
		if o.Alive {
			ids = append(ids, strings.TrimLeft(string(o.ID), "0"))
		}
	}
	return strings.Join(ids, " ")
}

// eventually waits in virtual time.
func (w *world) eventually(within time.Duration, what string, ok func() bool) {
	w.t.Helper()
	for start := time.Now(); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Since(start) > within {
			for _, n := range w.nodes {
				w.t.Logf("node %s: cluster %q alive %q\n%s", n.id, n.cluster(), n.alive(), tail(n.logs))
			}
			w.t.Fatalf("not within %v: %s", within, what)
		}
	}
}

func tail(l *logs) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.b.String()
	return s[max(0, len(s)-1500):]
}

// one reports that all nodes are in one cluster.
func one(nodes ...*node) func() bool {
	return func() bool {
		for _, n := range nodes {
			if n.cluster() == "" || n.cluster() != nodes[0].cluster() {
				return false
			}
		}
		return true
	}
}

func all(ids string, nodes ...*node) func() bool {
	return func() bool {
		for _, n := range nodes {
			if n.alive() != ids {
				return false
			}
		}
		return true
	}
}

var errPower = errors.New("power cut")
