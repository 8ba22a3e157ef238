package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kai/node/memcache"
	"kai/node/message"
	"kai/node/peer"
	"kai/node/placement"
	"kai/node/quorum"
	"kai/node/record"
	"kai/node/repair"
	"kai/node/replica"
	"kai/node/ring"
	"kai/node/store"
)

func (n *node) openStore() (*store.Store, error) {
	cfg := n.cfg
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = nil // not Linux: an unclean stop then counts as one of the machine
	}
	return store.Open(store.Options{
		Dir: cfg.DataDir, Logger: n.log, Interval: cfg.Durability == DurabilityInterval,
		BootID: strings.TrimSpace(string(boot)), CacheBytes: int64(cfg.CacheBytes),
		MaxRecordBytes: int(cfg.MaxValueBytes) + record.Overhead, OverlayBytes: overlayBytes(int64(cfg.CacheBytes)),
		BatchBegin: func() { n.peers.Hold() }, BatchEnd: n.batchEnd, Alone: func() bool { return n.links.none() },
	})
}

// overlayBytes is the memory for writes that are not yet in the table. The more of it, the fewer of the
// writes of keys that are written again soon have to go there.
func overlayBytes(cache int64) int64 { return min(max(cache/2, 64<<20), 256<<20) }

// peerIdentity is who this node says it is to its peers.
func (n *node) peerIdentity() peer.Identity {
	id := peer.Identity{Node: n.identity.Node, Boot: n.identity.Boot, Process: n.identity.Process, Cluster: n.cfg.Cluster}
	if f, ok := n.membership.Founded(); ok {
		id.ClusterID = f.ClusterID
	}
	return id
}

// admit refuses links to and from a node whose disk was rolled back. Gossip tells it to end, too, but
// requests are quicker than gossip.
func (n *node) admit(id peer.Identity) error {
	return n.membership.Admit(id.Node, id.Boot, id.Process)
}

// noSlot is the slot of a node that has none yet: it holds no partition and never proposes.
const noSlot = ^uint16(0)

// found waits for the founding and builds the data path.
func (n *node) found(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.membership.WhenFounded():
	}
	f, _ := n.membership.Founded()
	d, err := n.newDataPath(f)
	if err != nil {
		return err
	}
	if err := n.loadSeal(d); err != nil {
		return err
	}
	if err := n.begin(ctx, d); err != nil || ctx.Err() != nil {
		return err
	}
	n.links.open(d)
	n.loading.Store(nil)
	n.log.Info("data path open", "cluster_id", f.ClusterID, "quorum", f.Quorum.String(), "partitions", f.Partitions, "nodes", len(f.Nodes))
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return n.move(ctx, d) })
	parts.Go(func() error { return n.repair(ctx, d) })
	parts.Go(func() error { return d.pacer.Run(ctx) })
	parts.Go(func() error { return d.gentle.Run(ctx) })
	parts.Go(func() error { return n.backUp(ctx, d) })
	return parts.Wait()
}

// newDataPath builds what answers requests of a cluster, on what the disk holds; it starts nothing.
func (n *node) newDataPath(f ring.Founding) (*dataPath, error) {
	confs, err := n.configurations(f)
	if err != nil {
		return nil, err
	}
	d := &dataPath{founding: f}
	d.backups.left = make(chan struct{})
	if d.table, err = placement.New(f, confs, func(p ring.Partition, c ring.Configuration) {
		n.links.adopted(p, c)
		d.wakeMover(p)
	}); err != nil {
		return nil, err
	}
	d.replica = replica.New(replica.Options{
		Self: n.identity.Node, Storage: n.store, Journal: n.store, Fence: n.fence, Configurations: d.table,
		EncodeConfiguration: func(c ring.Configuration) []byte { return placement.AppendConfiguration(nil, c) },
		Partitions:          f.Partitions, PromiseSlots: promiseSlots, Refused: certainlyNothing,
		Wall: time.Now, Logger: n.log,
	})
	if err := d.replica.LoadPulled(n.store.Meta); err != nil {
		return nil, err
	}
	slot := noSlot
	if own, err := n.ownSlot(f); err != nil {
		return nil, err
	} else if own >= 0 {
		slot = uint16(own)
	}
	d.hints = repair.NewHints(repair.MaxHints, repair.MaxHintBytes)
	d.coordinator = quorum.New(quorum.Options{
		Slot: slot, Stamps: n.fence, Wall: time.Now, Timeout: n.cfg.RequestTimeout,
		MaxValue: int(n.cfg.MaxValueBytes), Seed: uint64(time.Now().UnixNano()), Logger: n.log,
		Adopt:  func(p ring.Partition, c ring.Configuration) { adopt(d.replica, p, c) },
		Hinter: d.hints, Flights: n.flights,
	})
	if n.store.Amnesia() {
		d.replica.SetVoting(false)
		n.log.Error("the machine stopped uncleanly under KAI_DURABILITY=interval: acknowledged writes may be missing here, so this node does not vote; empty its data directory to start it as a new node")
	}
	if n.storeFault.Load() != nil {
		d.replica.SetVoting(false)
	}
	d.pacer = placement.NewPacer(placement.PacerOptions{Most: int64(n.cfg.TransferRate), Latency: d.coordinator.Tail()})
	d.gentle = placement.NewPacer(placement.PacerOptions{
		Most: snapshotMost, Well: 1.25, Strained: 1.5, Latency: d.coordinator.Tail(), Served: d.served,
	})
	d.repairer = n.newRepairer(d)
	return d, nil
}

// What a snapshot works on in a second, in bytes, each counted twice (backup.Options.GiveWay).
const (
	snapshotMost  = 4 << 30          // more than a node can
	snapshotBusy  = 3 << 19          // while it serves somebody
	snapshotLeast = 1 << 20          // while clients feel it: some hundredths of a core
	snapshotSoon  = 90 * time.Minute // without clients that feel it, and with all to be uploaded, it takes no longer
)

// snapshotRates are the least, and the most while anybody is served. They are for small data; with more on disk, all of it would be done in half of BackupPatience whatever clients feel,
// and, if they do not, in an hour and a half, or a quarter of the time between two snapshots if that is sooner: nothing is won by being done before, and clients may feel it.
func (n *node) snapshotRates() (least, busy int64) {
	soon := snapshotSoon
	if every := n.cfg.BackupInterval; every > 0 {
		soon = min(soon, every/4)
	}
	within := func(d time.Duration) int64 { return int64(2 * float64(n.diskBytes()) / d.Seconds()) }
	return max(snapshotLeast, within(BackupPatience/2)), max(snapshotBusy, within(soon))
}

// served is how many requests the replica has served.
func (d *dataPath) served() uint64 {
	c := d.replica.Counters()
	return c.Reads.Load() + c.Prepares.Load() + c.Accepts.Load()
}

// promiseSlots is the size of a partition's table of promises: 16 KiB with the sums of its leaves, made when first needed.
const promiseSlots = 1024

// configurations are those on disk, and the founding's where none was adopted since.
func (n *node) configurations(f ring.Founding) ([]ring.Configuration, error) {
	confs := placement.Configurations(f)
	for p := range confs {
		b, err := n.store.Meta(replica.ConfigurationName(ring.Partition(p)))
		if err != nil {
			return nil, fmt.Errorf("configuration of partition %d: %w", p, err)
		}
		if b == nil {
			continue
		}
		if confs[p], err = placement.DecodeConfiguration(b); err != nil {
			return nil, fmt.Errorf("configuration of partition %d: %w", p, err)
		}
	}
	return confs, nil
}

// adopt takes a configuration by the door of the replica, which makes it durable first.
func adopt(r *replica.Replica, p ring.Partition, c ring.Configuration) {
	call := &message.Call{Completion: nobody{}}
	call.Request = message.Request{Kind: message.Configure, Partition: p, Configuration: c}
	r.Send(call)
}

type nobody struct{}

// Done implements message.Completion.
func (nobody) Done(*message.Call) {}

// certainlyNothing tells which store errors mean that nothing was written.
func certainlyNothing(err error) bool {
	return errors.Is(err, store.ErrBusy) || errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrTooLarge) || errors.Is(err, store.ErrClosed)
}

var _ interface {
	replica.Scanner
	replica.Purger
} = (*store.Store)(nil)

// handler answers the peers: mutations go to the coordinator, hints to the repairer, all else to the replica.
type handler struct{ n *node }

// Send implements peer.Handler.
func (h handler) Send(call *message.Call) {
	d := h.n.data.Load()
	switch {
	case d == nil:
		call.Reply.Status = message.NotVoting
		call.Completion.Done(call)
	case call.Kind == message.Mutate && h.n.quiet.Load():
		call.Reply.Status = message.NotVoting
		call.Completion.Done(call)
	case call.Kind == message.Mutate:
		d.coordinator.Forwarded(call)
	case call.Kind == message.Configurations:
		placement.Newer(call, d.founding.Partitions, d.table.Configuration)
		call.Completion.Done(call)
	case call.Kind == message.Digests:
		placement.Differing(call, d.founding.Partitions, d.table.Configuration)
		call.Completion.Done(call)
	case call.Kind == message.Transfer:
		go h.n.handOver(d, call.Keep())
	case call.Kind == message.Hints:
		d.repairer.Pull(call)
	case call.Kind == message.Report:
		h.n.answerReport(d, call)
	case call.Kind == message.Gather:
		h.n.answerGather(d, call)
	case call.Kind == message.Flush:
		go h.n.flushHere(call.Keep())
	default:
		d.replica.Send(call)
	}
}

// handOver answers a Transfer, when what went before is within the rate. call is its own, by Keep.
func (n *node) handOver(d *dataPath, call *message.Call) {
	d.pacer.Spend(context.Background(), 0) // it waits for a while at most
	if len(call.Key) == 0 {
		d.pacer.Charge(placement.PartitionCost)
	}
	d.replica.Send(&message.Call{Request: call.Request, Completion: handedOver{d.pacer, call}})
}

// handedOver passes the answer on, and has it paid for by whoever comes next.
type handedOver struct {
	pacer *placement.Pacer
	call  *message.Call
}

// Done implements message.Completion.
func (h handedOver) Done(call *message.Call) {
	h.pacer.Charge(len(call.Reply.Items))
	h.call.Reply = call.Reply
	h.call.Completion.Done(h.call)
}

// front opens sessions on the coordinator, also for connections older than the founding.
type front struct{ n *node }

// Session implements memcache.Store.
func (f front) Session() memcache.Session { return &session{n: f.n} }

// session is a coordinator's session from the founding on; before, nothing is available.
type session struct {
	n *node
	s *quorum.Session
}

// Execute implements memcache.Session.
func (s *session) Execute(ops []record.Op, results []record.Result) time.Duration {
	if s.s == nil {
		d := s.n.data.Load()
		if d == nil {
			for i := range results {
				results[i] = record.Result{Status: record.Unavailable, Detail: "the cluster is not founded yet"}
			}
			return 0
		}
		s.s = d.coordinator.Session()
	}
	if s.n.quiet.Load() {
		gets, at := refuseWrites(ops, results)
		found := make([]record.Result, len(gets))
		took := s.s.Execute(gets, found)
		for i, r := range found {
			results[at[i]] = r
		}
		return took
	}
	return s.s.Execute(ops, results)
}

// Close implements memcache.Session.
func (s *session) Close() {
	if s.s != nil {
		s.s.Close()
	}
}
