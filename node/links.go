package node

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"kai/node/message"
	"kai/node/peer"
	"kai/node/quorum"
	"kai/node/ring"
)

// links keeps one link to every other node that gossip knows, and the coordinator's routes over
// them. A link outlives the death of its node: it goes on trying, since the same disk may come back.
type links struct {
	n       *node
	current atomic.Pointer[map[ring.NodeID]*running] // replaced, never changed
	routing sync.Mutex                               // held while routes are made and set
}

// running is a link and how to stop it.
type running struct {
	*peer.Client
	stop context.CancelFunc
}

func newLinks(n *node) *links {
	l := &links{n: n}
	l.current.Store(&map[ring.NodeID]*running{})
	return l
}

// run follows the views until ctx ends.
func (l *links) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		changed := l.n.membership.Changed()
		if l.follow(ctx, l.n.membership.View(), &wg) {
			l.reroute()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// follow makes a link for each node of the view, and makes anew those whose address changed.
func (l *links) follow(ctx context.Context, v *ring.View, wg *sync.WaitGroup) (changed bool) {
	old := *l.current.Load()
	next := make(map[ring.NodeID]*running, len(v.Nodes))
	for id, link := range old {
		next[id] = link
	}
	for _, info := range v.Nodes {
		if info.ID == v.Self || info.PeerAddr == "" {
			continue
		}
		if link := old[info.ID]; link != nil {
			if link.Addr() == info.PeerAddr {
				continue
			}
			link.stop()
		}
		changed = true
		next[info.ID] = l.start(ctx, info, wg)
	}
	if changed {
		l.current.Store(&next)
	}
	return changed
}

func (l *links) start(ctx context.Context, info ring.NodeInfo, wg *sync.WaitGroup) *running {
	ctx, stop := context.WithCancel(ctx)
	link := &running{stop: stop, Client: peer.NewClient(peer.ClientOptions{
		Addr: info.PeerAddr, Node: info.ID, Identity: l.n.peerIdentity, Admit: l.n.admit, Logger: l.n.log,
		BatchBegin: l.n.peers.Hold, BatchEnd: l.n.batchEnd, Up: l.n.peerUp, MaxValue: int(l.n.cfg.MaxValueBytes), DefaultTimeout: l.n.cfg.RequestTimeout,
	})}
	wg.Go(func() { _ = link.Run(ctx) }) // nil: it ends with ctx
	return link
}

// batchEnd pushes out what the goroutine that calls it has sent and answered since peers.Hold.
func (n *node) batchEnd() {
	n.peers.Release() // first: a link's flush may let other goroutines run, whose replies would wait
	n.links.flush()
}

// none reports that this node knows no other.
func (l *links) none() bool { return len(*l.current.Load()) == 0 }

// flush pushes out what all links have gathered.
func (l *links) flush() {
	for _, link := range *l.current.Load() {
		link.Flush()
	}
}

// replica is the way to a node; one that gossip does not know cannot be reached.
func (l *links) replica(id ring.NodeID) quorum.Replica { return l.replicas(l.n.data.Load())(id) }

// replicas is replica with d as this node's data path; nil: none yet.
func (l *links) replicas(d *dataPath) func(ring.NodeID) quorum.Replica {
	return func(id ring.NodeID) quorum.Replica {
		if d != nil && id == l.n.identity.Node {
			return d.replica
		}
		if link := (*l.current.Load())[id]; link != nil {
			return link.Client
		}
		return absent{}
	}
}

// open makes d the node's data path, with its routes: whoever sees it can use it, and the node is not ready before.
func (l *links) open(d *dataPath) {
	l.routing.Lock()
	defer l.routing.Unlock()
	l.route(d)
	l.n.data.Store(d)
}

// reroute gives the coordinator routes over the links and configurations of now.
//
// Founding, gossip and new configurations lead to routes, perhaps at once: one at a time looks and sets, or
// routes made before a link was there could replace those made after.
func (l *links) reroute() {
	l.routing.Lock()
	defer l.routing.Unlock()
	if d := l.n.data.Load(); d != nil {
		l.route(d)
	}
}

// route is reroute for d; the caller holds routing.
func (l *links) route(d *dataPath) {
	snapshot := d.table.Snapshot()
	confs := make([]ring.Configuration, snapshot.Len())
	for p := range confs {
		confs[p] = snapshot.At(ring.Partition(p))
	}
	d.coordinator.SetRoutes(quorum.NewRoutes(confs, d.founding.Quorum, l.n.identity.Node, l.replicas(d)))
}

// adopted gives the coordinator routes in which p goes by c, which the table has adopted just now. The table's
// writer calls it, so c is the newest of p.
func (l *links) adopted(p ring.Partition, c ring.Configuration) {
	l.routing.Lock()
	defer l.routing.Unlock()
	if d := l.n.data.Load(); d != nil { // else open finds c in the table
		d.coordinator.SetRoutes(d.coordinator.Routes().With(p, c, l.replicas(d)))
	}
}

// sorted lists the links by node, for people.
func (l *links) sorted() []*running {
	var all []*running
	for _, link := range *l.current.Load() {
		all = append(all, link)
	}
	slices.SortFunc(all, func(a, b *running) int {
		if a.Node() < b.Node() {
			return -1
		}
		return 1
	})
	return all
}

// absent stands for a node without a known address.
type absent struct{}

// Send answers that nothing was sent.
func (absent) Send(call *message.Call) {
	call.Reply = message.Reply{Status: message.Unreachable}
	call.Completion.Done(call)
}

// Flush does nothing.
func (absent) Flush() {}

// Healthy is false.
func (absent) Healthy() bool { return false }
