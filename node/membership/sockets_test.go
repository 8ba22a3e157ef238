package membership

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"kai/node/ring"
)

// The same on real sockets of the loopback interface, with encryption.
func TestLoopback(t *testing.T) {
	if testing.Short() {
		t.Skip("real sockets and real time")
	}
	var seed atomic.Pointer[[]string]
	find := func(context.Context) ([]string, error) {
		if s := seed.Load(); s != nil {
			return *s, nil
		}
		return nil, errors.New("not known yet")
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	var nodes []*Membership
	for i := 1; i <= 3; i++ {
		m, err := New(Options{
			Self: ring.NodeInfo{Node: ring.Node{ID: nodeID(i)}, Boot: 1}, Cluster: "loop", Key: bytes.Repeat([]byte{7}, 32),
			Bind: "127.0.0.1:0", Find: find, Store: &disk{}, Expect: 3, Quorum: ring.Quorum{N: 3, R: 2, W: 2},
			Partitions: 64, VNodes: 16, Logger: slog.New(slog.NewTextHandler(&logs{}, nil)),
			Timing: Timing{Join: 200 * time.Millisecond, Founding: 100 * time.Millisecond},
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, m)
		go func() { ended <- m.Run(ctx) }()
	}
	for self := ""; self == ""; {
		changed := nodes[0].Changed()
		info, _ := nodes[0].View().Find(nodeID(1))
		if _, err := netip.ParseAddrPort(info.GossipAddr); err == nil {
			self = info.GossipAddr
			seed.Store(&[]string{self})
			break
		}
		<-changed
	}
	for _, m := range nodes {
		<-m.WhenFounded()
		first, _ := nodes[0].Founded()
		if f, _ := m.Founded(); f.ClusterID != first.ClusterID || len(f.Nodes) != 3 {
			t.Errorf("%+v and %+v", f, first)
		}
	}
	stop()
	for range nodes {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
