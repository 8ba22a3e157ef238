package nodetest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"kai/node/message"
	"kai/node/placement"
	"kai/node/quorum"
	"kai/node/repair"
	"kai/node/replica"
	"kai/node/ring"
)

// Mutant switches a safety rule off, so that the simulator can show that it notices.
type Mutant uint16

const (
	// LostFence: a restart forgets the fence, and with it every promise.
	LostFence Mutant = 1 << iota
	// WipedVoter: a node whose disk was wiped goes on voting under its old id.
	WipedVoter
	// ForgetsExpired: each disk forgets records that have expired, by itself.
	ForgetsExpired
	// PurgesBeforeSnapshot: dead records are forgotten before they are in a snapshot, as such.
	PurgesBeforeSnapshot
	// BeginsEarly: a founder votes before it has loaded what the cluster begins with.
	BeginsEarly
	// LoadsOldSnapshot: new members load the oldest snapshot in place of the newest.
	LoadsOldSnapshot
)

// Config of one simulated cluster.
type Config struct {
	Seed       uint64
	Nodes      int
	Quorum     ring.Quorum
	Partitions int
	Faults     Faults
	Skew       time.Duration // clocks are off by up to this, and jump
	Without    quorum.Rule
	Mutant     Mutant
	Timeout    time.Duration
	// LongSyncs has half of the syncs of disks take long, and none take along what was staged after it began.
	LongSyncs bool
	Moving    bool // partitions may move
	// Tick of the movers; 7 ms if zero.
	Tick time.Duration
	// Founders, if not zero, are the first of the nodes, which hold everything at first.
	Founders int
	// Plan, if not nil, has movers plan: see holders.
	Plan      bool
	Repairing bool // replicas are compared all the time, and hints handed off
	// RepairPause is between two passes of that; 0: a few milliseconds.
	RepairPause time.Duration
	Gossiping   bool // nodes know who is there; movers tell everybody of new configurations, and ask
	// WithoutMoving switches rules of moving partitions off.
	WithoutMoving placement.Rule
	// WideAfter: see quorum.Options; 0 here for never.
	WideAfter int
	// PurgeAge of dead records; 0: they are not purged.
	PurgeAge      time.Duration
	WithoutRepair repair.Rule
	WithoutVote   replica.Rule
	Snapshots     bool // are taken all the time, and new members load the newest one
	Begins        int  // so many keys are there from the beginning: founders load them before they vote
	SlowLoads     bool // that takes seconds, and does not fail
	RealStore     bool // the real store on a simulated disk, in place of the plain volume
	Mixed         bool // each life of a node is of one of two builds: some speak only the oldest version of the protocol
}

// Cluster is a simulated cluster. Make and use it inside a synctest bubble.
type Cluster struct {
	Config
	seed  uint64
	net   *network
	nodes []*node
	index map[ring.NodeID]int
	hot   []ring.Partition // those that the nemesis prefers; empty: all alike
	// holders is who is to hold partitions, sorted by id, if movers plan; what gossip would tell.
	holders atomic.Pointer[[]ring.Weighted]
	living  atomic.Pointer[[]ring.NodeID]
	first   []ring.Configuration // the founding ones, by partition
	newest  []ring.Configuration // the newest that anybody adopted
	bucket  bucket
	logs    *slog.Logger
	begun   time.Time
}

// node is one place for a process: its disk and clock, and the process that runs now.
type node struct {
	c     *Cluster
	index int
	id    ring.NodeID
	disk  *disk
	real  *realDisk // instead of disk, with Config.RealStore
	skew  atomic.Int64
	boots int
	out   bool         // never started again; the nemesis' own
	down  atomic.Int64 // when the process ended, since begun; 0 while it runs
	now   atomic.Pointer[incarnation]
	// loading is a life that loads what the cluster begins with, and is not there for others yet.
	loading atomic.Pointer[incarnation]
}

func (n *node) current() *incarnation { return n.now.Load() }

// today is how far synctest's clock, which starts in 2000, is behind.
const today = 27 * 365 * 24 * time.Hour

func (n *node) wall() time.Time { return time.Now().Add(today + time.Duration(n.skew.Load())) }

// incarnation is one life of a process.
type incarnation struct {
	*node
	volume      medium
	table       *placement.Table
	replica     *replica.Replica
	coordinator *quorum.Coordinator
	links       []*link // by node
	mover       *placement.Mover
	repairer    *repair.Repairer
	hints       *repair.Hints
	ctx         context.Context // ends with this life
	die         context.CancelFunc
	died        <-chan struct{}
	protocol    uint8 // newest version that it speaks
}

func (i *incarnation) alive() bool {
	select {
	case <-i.died:
		return false
	default:
		return true
	}
}

func nodeID(i int) ring.NodeID { return ring.NodeID(fmt.Sprintf("%016x", i+1)) }

// NewCluster starts all nodes, founded.
func NewCluster(cfg Config) *Cluster {
	c := &Cluster{Config: cfg, seed: cfg.Seed, begun: time.Now(), net: newNetwork(cfg.Seed, cfg.Faults), logs: slog.New(slog.DiscardHandler)}
	r := rng{seed: mix(cfg.Seed, 31)}
	if c.Tick == 0 {
		c.Tick = moverTick
	}
	if c.Founders == 0 {
		c.Founders = cfg.Nodes
	}
	for p := range cfg.Partitions {
		conf := ring.Configuration{Epoch: 1}
		for k := range min(cfg.Quorum.N, c.Founders) {
			conf.Members = append(conf.Members, nodeID((p+k)%c.Founders))
		}
		c.first = append(c.first, conf)
	}
	c.newest = append(c.newest, c.first...)
	c.index = map[ring.NodeID]int{}
	var holders []ring.Weighted
	for i := range c.Founders {
		holders = append(holders, ring.Weighted{Node: ring.Node{ID: nodeID(i)}})
	}
	c.holders.Store(&holders)
	for i := range cfg.Nodes {
		c.index[nodeID(i)] = i
		latency := func() time.Duration {
			lat := rng{seed: mix(cfg.Seed, 57, uint64(i), uint64(time.Since(c.begun)))}
			slow := 5
			if cfg.LongSyncs {
				slow = 50
			}
			if lat.chance(slow) {
				return lat.between(5*time.Millisecond, 60*time.Millisecond)
			}
			return lat.between(100*time.Microsecond, 2*time.Millisecond)
		}
		nd := &node{c: c, index: i, id: nodeID(i), disk: newDisk(latency)}
		if cfg.RealStore {
			nd.real = newRealDisk(mix(cfg.Seed, 63, uint64(i)), latency)
		}
		if cfg.Skew > 0 {
			nd.skew.Store(int64(r.between(0, cfg.Skew)))
		}
		c.nodes = append(c.nodes, nd)
	}
	for i := range c.nodes {
		c.start(i)
	}
	return c
}

// start begins a new life of node i on what its disk holds.
func (c *Cluster) start(i int) {
	nd := c.nodes[i]
	nd.boots++
	inc := &incarnation{node: nd, volume: &volume{d: nd.disk, ordered: c.LongSyncs, forgets: c.Mutant&ForgetsExpired != 0}}
	inc.ctx, inc.die = context.WithCancel(context.Background())
	inc.died = inc.ctx.Done()
	inc.protocol = message.Newest
	if r := (rng{seed: mix(c.seed, 93, uint64(i), uint64(nd.boots))}); c.Mixed && r.chance(50) {
		inc.protocol = message.Oldest
	}
	if c.RealStore {
		v, err := nd.real.open()
		if err != nil {
			panic(err)
		}
		inc.volume = v
	}
	if c.Mutant&LostFence != 0 {
		nd.disk.mu.Lock()
		delete(nd.disk.meta, "fence")
		nd.disk.mu.Unlock()
	}
	fence, err := replica.OpenFence(inc.volume, nd.wall)
	if err != nil {
		panic(err)
	}
	inc.table = c.openTable(inc)
	inc.replica = replica.New(replica.Options{
		Self: nd.id, Storage: inc.volume, Journal: inc.volume, Fence: fence,
		Configurations: inc.table, EncodeConfiguration: func(c ring.Configuration) []byte { return placement.AppendConfiguration(nil, c) },
		Partitions: c.Partitions, PromiseSlots: 256,
		Refused: func(err error) bool { return err == errBusy },
		Wall:    nd.wall, Logger: c.logs, Without: c.WithoutVote,
	})
	if c.WideAfter == 0 {
		c.WideAfter = -1
	}
	inc.hints = repair.NewHints(simHints, repair.MaxHintBytes)
	inc.coordinator = quorum.New(quorum.Options{
		Slot: uint16(i), Stamps: fence, Wall: nd.wall, Timeout: c.Timeout, MaxValue: 1 << 20,
		StickyKeys: 64, WideAfter: c.WideAfter, Seed: mix(c.seed, 91, uint64(i), uint64(nd.boots)), Without: c.Without, Logger: c.logs,
		Adopt: inc.adopt, Hinter: inc.hinter(),
	})
	for k := range c.Nodes {
		inc.links = append(inc.links, newLink(c, inc, k))
	}
	inc.coordinator.SetRoutes(quorum.NewRoutes(inc.configurations(), c.Quorum, nd.id, inc.peer))
	if err := inc.replica.LoadPulled(inc.volume.Meta); err != nil {
		panic(err)
	}
	inc.mover = placement.NewMover(inc.moving())
	inc.repairer = repair.New(repair.Options{
		Self: nd.id, Partitions: c.Partitions, Configuration: inc.table.Configuration,
		Peer:   func(id ring.NodeID) repair.Replica { return inc.peer(id) },
		Chosen: inc.coordinator.Chosen, Rewrite: inc.coordinator.Rewrite, Local: inc.replica, Drop: inc.replica.Drop, PurgeAge: inc.purgeAge, Without: c.WithoutRepair,
		Hints: inc.hints, Timeout: c.Timeout / 10, Pause: cmp.Or(c.RepairPause, moverTick/3), Rest: 1, Logger: c.logs,
	})
	if begun, _ := inc.volume.Meta(begunName); c.Begins > 0 && begun == nil {
		nd.loading.Store(inc)
		go c.begin(inc)
		if c.Mutant&BeginsEarly == 0 {
			return
		}
	}
	c.open(inc)
}

// open has others see a life of a node.
func (c *Cluster) open(inc *incarnation) {
	nd := inc.node
	nd.now.Store(inc)
	nd.down.Store(0)
	if len(c.nodes) == c.Nodes {
		c.count()
	}
	if c.Repairing {
		go func() { _ = inc.repairer.Run(inc.ctx) }()     // nil: it ends with ctx
		go func() { _ = inc.repairer.HandOff(inc.ctx) }() // the same
	}
	if c.Moving {
		go func() { _ = inc.mover.Run(inc.ctx) }() // nil: it ends with ctx
	}
}

// simHints is so few that some are dropped.
const simHints = 4

// hinter is who hears of missed writes.
func (i *incarnation) hinter() quorum.Hinter {
	if !i.c.Repairing {
		return nil
	}
	return i.hints
}

// crash ends the current life of node i: what was not synced is gone.
func (c *Cluster) crash(i int) {
	inc := c.nodes[i].current()
	if l := c.nodes[i].loading.Swap(nil); l != nil && l != inc {
		l.end() // nobody knew of it
		return
	}
	if inc == nil || !inc.alive() {
		return
	}
	inc.down.Store(int64(time.Since(c.begun)) + 1)
	inc.end()
	c.count()
	if mix(c.seed, 17, uint64(i), uint64(inc.boots))%4 == 0 {
		return // the machine is gone: nobody tells the others
	}
	for _, n := range c.nodes {
		if other := n.current(); other != nil && other.alive() {
			time.AfterFunc(time.Millisecond+time.Duration(n.index), other.links[i].reset)
		}
	}
}

// end ends this life.
func (i *incarnation) end() {
	i.die()
	i.volume.abort()
	if i.c.RealStore {
		i.real.crash()
	}
	i.replica.SetVoting(false)
}

// wipe empties the disk of a crashed node.
func (c *Cluster) wipe(i int) {
	if c.RealStore {
		c.nodes[i].real.wipe()
	}
	d := c.nodes[i].disk
	d.mu.Lock()
	d.records, d.of, d.meta = map[string][]byte{}, map[string]ring.Partition{}, map[string][]byte{}
	d.mu.Unlock()
}
