// Package node assembles one Kai node and runs it until its context ends. See DESIGN.md.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"kai/discovery"
	"kai/node/console"
	"kai/node/flight"
	"kai/node/membership"
	"kai/node/memcache"
	"kai/node/peer"
	"kai/node/placement"
	"kai/node/quorum"
	"kai/node/repair"
	"kai/node/replica"
	"kai/node/ring"
	"kai/node/store"
)

// node is the parts of one running node.
type node struct {
	cfg      Config
	opts     Options
	log      *slog.Logger
	identity identity
	place    discovery.Place // as the cloud has told; zero if it was not asked
	started  time.Time

	bucket     *keptBucket // nil: there is none
	store      *store.Store
	fence      *replica.Fence
	membership *membership.Membership
	links      *links
	clients    *memcache.Server
	peers      *peer.Server
	// data is what exists only once the cluster is founded.
	data atomic.Pointer[dataPath]
	// storeFault is why the store takes no more writes.
	storeFault atomic.Pointer[error]
	// leaves is closed when it is about to end, and takes part in snapshots no more.
	leaves chan struct{}
	// flights are requests that were slow, failed, or found replicas that differ.
	flights     *flight.Recorder
	flightsOut  chan kept
	notExported atomic.Uint64 // because there were too many
	// draining: it is to hold nothing, because it stops, or an operator wants it so.
	draining atomic.Bool
	stopping atomic.Bool
	// seal is the state by console.Sealer; nil is open. sealing guards changes.
	seal    atomic.Pointer[console.SealState]
	quiet   atomic.Bool // clients' writes are refused
	sealing sync.Mutex
	// loading says how it goes with what the cluster begins with; nil when that is done, or nothing.
	loading atomic.Pointer[string]
}

// dataPath is what answers requests, from the founding on.
type dataPath struct {
	founding    ring.Founding
	table       *placement.Table
	replica     *replica.Replica
	coordinator *quorum.Coordinator
	mover       atomic.Pointer[placement.Mover]
	seen        atomic.Pointer[sightings]
	meter       meter
	outlooks    outlooks
	recovering  sync.Mutex
	repairer    *repair.Repairer
	pacer       *placement.Pacer // of transfers
	gentle      *placement.Pacer // of snapshots
	hints       *repair.Hints
	backups     backups
}

// wakeMover has the mover look at p at once, if it runs.
func (d *dataPath) wakeMover(p ring.Partition) {
	if m := d.mover.Load(); m != nil {
		m.Wake(p)
	}
}

// Run runs a node until ctx ends, and returns when everything it started has ended. The error says
// why the node could not go on; nil after a clean stop.
func Run(ctx context.Context, cfg Config, opts Options) error {
	addrs, err := InterfaceAddrs()
	if err != nil {
		return err
	}
	if cfg, err = cfg.ResolveAdvertise(addrs); err != nil {
		return err
	}
	n := &node{cfg: cfg, opts: opts, log: opts.Logger, started: time.Now(), leaves: make(chan struct{}), flightsOut: make(chan kept, flightsOut)}
	if cfg.TraceSlow > 0 {
		n.flights = flight.New(flight.Options{Slow: cfg.TraceSlow, Ratio: cfg.TraceRatio, Export: func(f *flight.Flight) { n.offer(kept{flight: f}) }, ExportPart: func(p flight.Part) { n.offer(kept{part: &p}) }})
	}
	if cfg.BackupURL != "" {
		n.bucket = &keptBucket{cfg: cfg}
		defer n.bucket.close()
	}
	if err := n.open(ctx); err != nil {
		return err
	}
	if opts.Identified != nil {
		if err := opts.Identified(Self{ID: string(n.identity.Node), Cluster: cfg.Cluster, Zone: n.cfg.Zone, Place: n.place, Metrics: newRegistry(n), SyncsAside: n.store.SyncsAside()}); err != nil {
			return errors.Join(err, n.store.Close())
		}
	}
	listeners, err := n.listen()
	if err != nil {
		return errors.Join(err, n.store.Close())
	}
	return n.run(ctx, listeners)
}

// open takes the data directory: the store first, because it holds the directory's lock.
func (n *node) open(ctx context.Context) error {
	if err := os.MkdirAll(n.cfg.DataDir, 0o750); err != nil {
		return fmt.Errorf("data directory: %w; set KAI_DATA_DIR to a directory that can be written", err)
	}
	st, err := n.openStore()
	if err != nil {
		return err
	}
	n.store = st
	fail := func(err error) error { return errors.Join(err, st.Close()) }
	if n.identity, err = openIdentity(n.cfg.DataDir); err != nil {
		return fail(err)
	}
	n.log = n.log.With("self", string(n.identity.Node))
	ctx, cancel := context.WithTimeout(ctx, zoneWait)
	defer cancel()
	if err := n.learnZone(ctx); err != nil {
		return fail(err)
	}
	if n.fence, err = replica.OpenFence(st, time.Now); err != nil {
		return fail(err)
	}
	if n.membership, err = n.newMembership(); err != nil {
		return fail(err)
	}
	n.links = newLinks(n)
	n.peers = peer.NewServer(peer.ServerOptions{
		Handler: handler{n}, Identity: n.peerIdentity, Admit: n.admit, Logger: n.log,
		BatchEnd: n.links.flush, Sampled: n.served, MaxValue: int(n.cfg.MaxValueBytes),
	})
	n.clients = memcache.NewServer(memcache.Options{
		Store: front{n}, Admin: admin{n}, Version: clientVersion(n.opts.Version),
		MaxValueBytes: int(n.cfg.MaxValueBytes), MaxConnections: n.cfg.MaxConnections,
		Expiration: n.cfg.Expiration, FlushAll: n.cfg.FlushAll, Logger: n.log,
		DrainTimeout: n.cfg.RequestTimeout + 3*time.Second,
	})
	return nil
}

// clientVersion is what version tells: client libraries want a number first that is not 0, and
// decide by it what the server can do.
func clientVersion(build string) string {
	return "1.6.27-kai-" + strings.TrimPrefix(build, "v")
}

func (n *node) newMembership() (*membership.Membership, error) {
	finder, err := discovery.Parse(n.cfg.Discovery)
	if err != nil {
		return nil, fmt.Errorf("KAI_DISCOVERY: %w", err)
	}
	find := func(ctx context.Context) ([]string, error) {
		peers, err := finder.Peers(ctx)
		var addrs []string
		for _, p := range peers {
			addrs = append(addrs, p.Addr)
		}
		return addrs, err
	}
	if n.cfg.Discovery == "" {
		find = nil
	}
	advertise, err := resolve(n.cfg.GossipAddr())
	if err != nil {
		return nil, err
	}
	var deciding membership.Registry
	if n.bucket != nil {
		deciding = registry{n.bucket}
	}
	return membership.New(membership.Options{
		Registry: deciding,
		Self: ring.NodeInfo{
			Node:     ring.Node{ID: n.identity.Node, Zone: n.cfg.Zone},
			PeerAddr: n.cfg.PeerAddr(), AdminAddr: n.cfg.AdminAddr(),
			Version: n.opts.Version, Boot: n.identity.Boot, Process: n.identity.Process, Weight: n.cfg.Weight,
		},
		Cluster: n.cfg.Cluster, Key: n.cfg.GossipKey.Bytes(),
		Bind: n.cfg.GossipListen.String(), Advertise: advertise,
		Find: find, Store: foundingFile{n.cfg.DataDir}, Expect: n.cfg.BootstrapExpect,
		Quorum: n.cfg.Quorum, Partitions: n.cfg.Partitions, VNodes: n.cfg.VNodes, Logger: n.log,
	})
}

// resolve turns host:port into ip:port, as gossip wants it.
func resolve(addr string) (string, error) {
	if _, err := netip.ParseAddrPort(addr); err == nil {
		return addr, nil
	}
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return "", fmt.Errorf("KAI_ADVERTISE: %w", err)
	}
	return a.String(), nil
}

type listeners struct{ clients, peers, admin net.Listener }

func (n *node) listen() (l listeners, err error) {
	open := func(name, addr string) net.Listener {
		if err != nil {
			return nil
		}
		var ln net.Listener
		if ln, err = net.Listen("tcp", addr); err != nil {
			err = fmt.Errorf("%s: %w; another process may use the port: stop it or choose another", name, err)
		}
		return ln
	}
	l.clients = open("KAI_LISTEN", n.cfg.Listen.String())
	l.peers = open("KAI_PEER_LISTEN", n.cfg.PeerListen.String())
	l.admin = open("KAI_ADMIN_LISTEN", n.cfg.AdminListen.String())
	if err != nil {
		for _, ln := range []net.Listener{l.clients, l.peers, l.admin} {
			if ln != nil {
				_ = ln.Close()
			}
		}
	}
	return l, err
}

// run starts everything and, when ctx ends or a part fails, stops in this order: clients first, so
// that what they asked for is answered; then peers and links; then gossip; the store last. What a
// later stage serves is gone before the stage ends.
func (n *node) run(ctx context.Context, l listeners) error {
	clients, peers, gossip, disk := newStage("clients", n.log), newStage("peers", n.log), newStage("gossip", n.log), newStage("store", n.log)
	disk.start(n.runStore)
	gossip.start(n.membership.Run)
	gossip.start(console.New(console.Options{Listener: l.admin, Source: source{n}, Logger: n.log}).Run)
	peers.start(n.links.run)
	peers.start(func(ctx context.Context) error { return n.peers.Serve(ctx, l.peers) })
	peers.start(n.found)
	peers.start(n.exportFlights)
	clients.start(func(ctx context.Context) error { return n.clients.Serve(ctx, l.clients) })
	clients.start(n.announceReady)
	n.log.Info("node started", "version", n.opts.Version, "boot", n.identity.Boot, "data_dir", n.cfg.DataDir,
		"listen", l.clients.Addr().String(), "peer_addr", n.cfg.PeerAddr(), "admin", l.admin.Addr().String())

	stages := []*stage{clients, peers, gossip, disk}
	failed := make(chan struct{}, len(stages))
	for _, s := range stages {
		go func() { <-s.failed(); failed <- struct{}{} }()
	}
	watch, unwatch := context.WithCancel(context.Background())
	defer unwatch()
	departures := n.departures(watch)
	var departure *discovery.Departure
	var holding sync.WaitGroup
	select {
	case <-ctx.Done():
		n.drain(time.Time{})
		n.log.Info("node stops")
	case departure = <-departures:
		holding.Go(func() { departure.Hold(watch, n.cloudFailed) })
		n.drain(departure.By)
		n.log.Info("node stops")
	case <-failed:
	}
	var err error
	for _, s := range stages {
		err = errors.Join(err, s.stop())
	}
	err = errors.Join(err, n.store.Close())
	unwatch()
	holding.Wait()
	n.depart(departure)
	if err != nil {
		return err // who called Run reports it
	}
	n.log.Info("node stopped")
	return nil
}

// runStore runs the store. When the disk fails the node lives on, without a vote: it still forwards,
// and its console says what happened.
func (n *node) runStore(ctx context.Context) error {
	err := n.store.Run(ctx)
	if err == nil {
		return nil
	}
	n.storeFault.Store(&err)
	n.log.Error("the disk failed: this node does not vote any more; mend the disk, then restart the node", "error", err)
	if d := n.data.Load(); d != nil {
		d.replica.SetVoting(false)
	}
	<-ctx.Done()
	return err
}

// stage is a group of parts that stop together.
type stage struct {
	name   string
	group  *errgroup.Group
	ctx    context.Context
	cancel context.CancelFunc
	log    *slog.Logger
}

func newStage(name string, log *slog.Logger) *stage {
	base, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(base)
	return &stage{name: name, group: group, ctx: ctx, cancel: cancel, log: log}
}

func (s *stage) start(run func(context.Context) error) {
	s.group.Go(func() error { return run(s.ctx) })
}

// failed is closed when a part failed, or the stage is stopped.
func (s *stage) failed() <-chan struct{} { return s.ctx.Done() }

func (s *stage) stop() error {
	s.cancel()
	if err := s.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}
