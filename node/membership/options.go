package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/memberlist"

	"kai/node/ring"
)

// FoundingStore keeps what a node must never forget about the founding of its cluster.
type FoundingStore interface {
	// Load returns what was saved last; the zero FoundingState on an empty disk.
	Load() (FoundingState, error)
	// Save replaces the state and returns when it is durable. After an error either state may
	// be on disk; membership then stops for good.
	Save(FoundingState) error
}

// FoundingState is a node's durable part in the founding. At most one field is set.
type FoundingState struct {
	// Founded is the founding of the node's cluster; it never changes again.
	Founded *ring.Founding `json:"founded,omitempty"`
	// Vote is the proposal the node is bound to, its own or another node's.
	Vote *Vote `json:"vote,omitempty"`
}

// Vote binds a node to a proposal until its proposer founds or abandons it.
type Vote struct {
	Proposer ring.NodeID   `json:"proposer"`
	Founding ring.Founding `json:"founding"`
	// Claiming: all have voted for this node's own proposal, and the registry may hold it.
	Claiming bool `json:"claiming,omitempty"`
}

// Registry decides, for all nodes of a cluster's name that ever ask, which founding of each generation counts: of several at most one. Its methods
// may block until ctx ends; they are called one at a time each.
type Registry interface {
	// Ground tells what is registered.
	Ground(ctx context.Context) (Ground, error)
	// Claim registers f as the founding of its generation, unless there is one, and returns that which there is. After an error it may be either.
	Claim(ctx context.Context, f ring.Founding) (ring.Founding, error)
}

// Ground is what a founding must begin from.
type Ground struct {
	// Generation of the newest founding; 0: there was none.
	Generation uint32
	// Founded is that founding, unless it is sealed: its cluster has ended for good.
	Founded *ring.Founding
	// Snapshot is what the cluster of the next generation begins with, if the last one was sealed; empty: with nothing.
	Snapshot string
}

// Options of a Membership. All fields without a word about zero are required.
type Options struct {
	// Self describes this node; ID, Zone, PeerAddr, AdminAddr, Version, Boot, Weight and Process
	// (0 if there is none) are used.
	Self ring.NodeInfo
	// Cluster is the name of the cluster: nodes of another name are strangers.
	Cluster string
	// Key encrypts gossip: 16, 24 or 32 bytes, the same on all nodes; nil for none.
	Key []byte
	// Bind is the gossip address, ip:port; port 0 takes a free one. Advertise is the ip:port
	// others reach it by; empty if that is Bind (or, with 0.0.0.0, the private address).
	Bind, Advertise string
	// Find returns the gossip addresses (ip:port) of possible peers; it may return some along
	// with an error. nil: there are none to find.
	Find func(context.Context) ([]string, error)
	// Transport replaces the network; nil for sockets. Run shuts it down.
	Transport memberlist.Transport
	Store     FoundingStore
	// Registry, if not nil, decides which founding counts; then all nodes must have it.
	Registry Registry
	// Expect is the number of nodes that found a cluster.
	Expect int
	// Quorum, Partitions and VNodes are what this node would found a cluster with; a cluster
	// founded with other values is refused.
	Quorum             ring.Quorum
	Partitions, VNodes int
	Logger             *slog.Logger
	// Timing may be zero.
	Timing Timing
}

// Timing holds intervals; a zero field takes the default given with it.
type Timing struct {
	// Join is the mean interval of discovery until the first peer is met: 2 s.
	Join time.Duration
	// Rejoin is the mean interval afterwards: 15 s. It bounds how long a healed network stays
	// split, because gossip forgets the dead after 30 s.
	Rejoin time.Duration
	// Find bounds one look-up: 10 s.
	Find time.Duration
	// Founding is the interval of the founding protocol: 500 ms.
	Founding time.Duration
	// Survey is the interval of looks at the registry, until there is a founding: 3 s at first, and five times that in the end.
	Survey time.Duration
	// Claim bounds one look, or claim: 20 s.
	Claim time.Duration
	// Stream bounds dialling and answering on gossip's streams: 3 s.
	Stream time.Duration
	// Leave bounds how long Run tries to say good-bye: 2 s.
	Leave time.Duration
}

func (t Timing) withDefaults() Timing {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&t.Join, 2*time.Second)
	set(&t.Rejoin, 15*time.Second)
	set(&t.Find, 10*time.Second)
	set(&t.Founding, 500*time.Millisecond)
	set(&t.Survey, 3*time.Second)
	set(&t.Claim, 20*time.Second)
	set(&t.Stream, 3*time.Second)
	set(&t.Leave, 2*time.Second)
	return t
}

const (
	maxExpect  = 256 // founders; bounds the founding document
	maxCluster = 200 // bytes of the cluster's name; gossip's label takes 255
)

// check reports every fault at once.
func (o *Options) check() error {
	var errs []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("membership: "+format, args...))
		}
	}
	fault(!validID(o.Self.ID), "node id %q is not 16 lower-case hex digits", o.Self.ID)
	fault(o.Cluster == "" || len(o.Cluster) > maxCluster, "the cluster's name needs 1 to %d bytes, %q has %d", maxCluster, o.Cluster, len(o.Cluster))
	fault(len(o.Key) != 0 && len(o.Key) != 16 && len(o.Key) != 24 && len(o.Key) != 32, "the gossip key has %d bytes, it needs 16, 24 or 32", len(o.Key))
	fault(o.Expect < 1 || o.Expect > maxExpect, "expecting %d founding nodes, possible are 1 to %d", o.Expect, maxExpect)
	fault(o.Partitions < 1 || o.Partitions > ring.MaxPartitions || o.Partitions&(o.Partitions-1) != 0, "%d partitions: needs a power of two, at most %d", o.Partitions, ring.MaxPartitions)
	fault(o.VNodes < 1 || o.VNodes > maxVNodes, "%d vnodes: needs 1 to %d", o.VNodes, maxVNodes)
	fault(o.Store == nil, "no founding store")
	fault(o.Logger == nil, "no logger")
	if err := o.Quorum.Check(); err != nil {
		errs = append(errs, fmt.Errorf("membership: %w", err))
	}
	if o.Transport == nil {
		_, err := bindAddr(o.Bind)
		fault(err != nil, "gossip listen address %q: %v", o.Bind, err)
		bind, _ := netip.ParseAddrPort(o.Bind)
		fault(bind.Addr() == netip.IPv6Unspecified() && o.Advertise == "", "gossip listen address %q needs an advertised address", o.Bind)
	}
	if o.Advertise != "" {
		a, err := netip.ParseAddrPort(o.Advertise)
		fault(err != nil || a.Port() == 0 || a.Addr().IsUnspecified(), "advertised gossip address %q: write ip:port as others reach it, for example 10.0.0.7:11213", o.Advertise)
	}
	for what, text := range map[string]string{"zone": o.Self.Zone, "peer address": o.Self.PeerAddr, "admin address": o.Self.AdminAddr, "version": o.Self.Version} {
		fault(len(text) > maxText || !utf8.ValidString(text), "%s %q: needs valid UTF-8 of at most %d bytes", what, text, maxText)
	}
	if size := o.longestMeta(); size > memberlist.MetaMaxSize {
		fault(true, "zone, addresses and version are too long to gossip: %d bytes, at most %d; shorten zone %q (%d), peer address %q (%d), admin address %q (%d) or version %q (%d)",
			size, memberlist.MetaMaxSize, o.Self.Zone, len(o.Self.Zone), o.Self.PeerAddr, len(o.Self.PeerAddr),
			o.Self.AdminAddr, len(o.Self.AdminAddr), o.Self.Version, len(o.Self.Version))
	}
	return errors.Join(errs...)
}

// bindAddr checks a listen address. memberlist takes a name for "all interfaces", so none may pass.
func bindAddr(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, errors.New("write ip:port, for example 127.0.0.1:11213")
	}
	if host == "" {
		host = "0.0.0.0"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, errors.New("the host must be an IP address, for example 127.0.0.1 or 0.0.0.0")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, errors.New("the port must be a number from 0 to 65535")
	}
	return netip.AddrPortFrom(ip, uint16(n)), nil
}

func (o *Options) settings() settings {
	return settings{Quorum: o.Quorum, Partitions: o.Partitions, VNodes: o.VNodes}
}

// longestMeta is the most bytes that this node's data may take.
func (o *Options) longestMeta() int {
	m := o.meta(clusterIDOfFullLength, math.MaxUint16-1, true)
	m.Process = math.MaxUint64
	return len(appendMeta(nil, m))
}

// meta is what this node tells about itself.
func (o *Options) meta(clusterID string, slot int, draining bool) meta {
	return meta{
		Boot: o.Self.Boot, Settings: o.settings(), Expect: o.Expect, ClusterID: clusterID, Zone: o.Self.Zone,
		PeerAddr: o.Self.PeerAddr, AdminAddr: o.Self.AdminAddr, Version: o.Self.Version, Slot: slot, Draining: draining, Process: o.Self.Process, Weight: o.Self.Weight,
	}
}
