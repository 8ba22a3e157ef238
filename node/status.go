package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kai/node/console"
	"kai/node/ring"
)

// source is what the console shows of the node.
type source struct{ n *node }

// Status implements console.Source.
func (s source) Status() console.Status {
	st := s.status()
	if d := s.n.data.Load(); d != nil {
		st.Transfer = s.n.transfer(d, s.n.outlook(d))
	}
	return st
}

// status is Status without the outlook on moves.
func (s source) status() console.Status {
	n := s.n
	st := console.Status{
		NodeID: string(n.identity.Node), Version: n.opts.Version, Started: n.started,
		Cluster: console.Cluster{Name: n.cfg.Cluster, Quorum: n.cfg.Quorum.String(), Partitions: n.cfg.Partitions, VNodes: n.cfg.VNodes},
		Store:   n.storeStatus(),
	}
	view := n.membership.View()
	st.Draining = n.draining.Load()
	var held, favoured map[ring.NodeID]int
	if d := n.data.Load(); d != nil {
		f := d.founding
		st.Cluster = console.Cluster{ID: f.ClusterID, Name: f.Name, Generation: f.Generation, Founding: "founded",
			Quorum: f.Quorum.String(), Partitions: f.Partitions, VNodes: f.VNodes}
		able := 0
		for _, node := range view.Nodes {
			if node.Slot >= 0 && node.Alive {
				able++
			}
		}
		current := configurations(d)
		held, favoured = holdings(membersOf(current))
		st.Recoveries = recoveries(current)
		st.Lost = len(n.lost(d))
		for _, conf := range current {
			if len(conf.Next) > 0 {
				st.Moving++
			}
			if len(conf.Members) < f.Quorum.N {
				st.UnderReplicated.Partitions++
			}
		}
		if st.UnderReplicated.Partitions > 0 {
			st.UnderReplicated.Reason = fmt.Sprintf("%d nodes may hold partitions, and %s wants %d replicas", able, f.Quorum, f.Quorum.N)
		}
		st.Backup = n.backupStatus(d)
	} else {
		alive := 0
		for _, node := range view.Nodes {
			if node.Alive {
				alive++
			}
		}
		st.Cluster.Founding = fmt.Sprintf("waiting for %d nodes, %d are here", n.cfg.BootstrapExpect, alive)
		if how := n.loading.Load(); how != nil {
			st.Cluster.Founding = "founded; this node " + *how
		}
	}
	for _, node := range view.Nodes {
		st.Nodes = append(st.Nodes, console.Node{
			ID: string(node.ID), Slot: node.Slot, Zone: node.Zone, Alive: node.Alive, Draining: node.Alive && node.Draining, Version: node.Version,
			PeerAddr: node.PeerAddr, GossipAddr: node.GossipAddr, AdminAddr: node.AdminAddr, Boot: node.Boot,
			Partitions: held[node.ID], Favoured: favoured[node.ID],
		})
	}
	for _, link := range n.links.sorted() {
		l := console.Link{Node: string(link.Node()), Addr: link.Addr(), Up: link.Healthy()}
		if !l.Up {
			l.Detail = "not heard of lately"
		}
		st.Links = append(st.Links, l)
	}
	return st
}

// Ready implements console.Source: the node may take traffic when it is in a cluster, votes, and
// reaches a quorum of every partition.
func (s source) Ready() (bool, []string) {
	var reasons []string
	d := s.n.data.Load()
	if d == nil {
		return false, []string{s.status().Cluster.Founding}
	}
	if !d.replica.Healthy() {
		why := "this node does not vote"
		if err := s.n.storeFault.Load(); err != nil {
			why += ": " + (*err).Error()
		}
		reasons = append(reasons, why)
	}
	switch s.n.sealed() {
	case console.SealQuiet, console.SealSet:
		reasons = append(reasons, "this node is sealed: it takes no writes")
	case console.SealEnded:
		reasons = append(reasons, "this node's cluster has ended: the bucket has its seal")
	}
	if s.n.draining.Load() && s.n.stopping.Load() {
		reasons = append(reasons, "this node hands over what it holds, and will stop")
	}
	if missing := d.coordinator.Unreachable(); missing > 0 {
		reasons = append(reasons, fmt.Sprintf("no quorum in reach for %d of %d partitions", missing, d.founding.Partitions))
	}
	return len(reasons) == 0, reasons
}

// announceReady calls Options.Ready once.
func (n *node) announceReady(ctx context.Context) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if ok, _ := (source{n}).Ready(); ok {
			n.log.Info("node serves")
			if n.opts.Ready != nil {
				n.opts.Ready()
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Settings implements console.Source.
func (s source) Settings() []console.Setting {
	var all []console.Setting
	for _, x := range s.n.cfg.Settings() {
		all = append(all, console.Setting(x))
	}
	return all
}

// Metrics implements console.Source.
func (s source) Metrics() http.Handler {
	return promhttp.HandlerFor(newRegistry(s.n), promhttp.HandlerOpts{EnableOpenMetrics: true, ErrorLog: slog.NewLogLogger(s.n.log.Handler(), slog.LevelWarn)})
}

// admin answers the memcache commands that act on no key.
type admin struct{ n *node }

// FlushAll implements memcache.Admin.
func (a admin) FlushAll(delay time.Duration) error { return a.n.flushAll(delay) }

// Stats implements memcache.Admin. The names beginning with kai_ are the ancestor's, where it had
// them.
func (a admin) Stats(emit func(name, value string)) {
	n := a.n
	st := source{n}.status()
	alive := 0
	for _, node := range st.Nodes {
		if node.Alive {
			alive++
		}
	}
	emit("kai_node", st.NodeID)
	emit("kai_cluster", st.Cluster.Name)
	emit("kai_cluster_id", st.Cluster.ID)
	emit("kai_quorum", st.Cluster.Quorum)
	emit("kai_partitions", strconv.Itoa(st.Cluster.Partitions))
	emit("kai_virtual_nodes", strconv.Itoa(st.Cluster.VNodes))
	emit("kai_curr_nodes", strconv.Itoa(alive))
	emit("kai_store", "badger")
	emit("kai_durability", st.Store.Durability)
	emit("kai_under_replicated", strconv.Itoa(st.UnderReplicated.Partitions))
	n.measure(func(name string, v uint64) { emit("kai_"+name, strconv.FormatUint(v, 10)) })
}

// measure emits the node's counters.
func (n *node) measure(emit func(name string, v uint64)) {
	if d := n.data.Load(); d != nil {
		q, r := d.coordinator.Counters(), d.replica.Counters()
		emit("gets", q.Gets.Load())
		emit("mutations", q.Mutations.Load())
		emit("forwarded", q.Forwarded.Load())
		emit("unreconciled_get", q.UnreconciledGets.Load())
		emit("write_backs", q.WriteBacks.Load())
		emit("hedged_reads", q.Hedges.Load())
		emit("rounds", q.Rounds.Load())
		emit("sticky_rounds", q.StickyRounds.Load())
		emit("round_retries", q.Retries.Load())
		emit("seals", q.Seals.Load())
		emit("partition_promises", q.Wides.Load())
		emit("partition_promise_rounds", q.WideRounds.Load())
		emit("outcome_unknown", q.Unknown.Load())
		emit("unavailable", q.Unavailable.Load())
		emit("folded_mutations", q.Folded.Load())
		emit("replica_reads", r.Reads.Load())
		emit("replica_prepares", r.Prepares.Load())
		emit("replica_accepts", r.Accepts.Load())
		emit("replica_nacks", r.Nacks.Load())
		emit("replica_clock_rejects", r.ClockRejects.Load())
		emit("replica_wrong_epochs", r.WrongEpochs.Load())
		emit("replica_corrupt_records", r.Corrupt.Load())
		emit("replica_disk_reads", r.DiskReads.Load())
		emit("unreachable_partitions", uint64(d.coordinator.Unreachable()))
		repairs := d.repairer.Counters()
		emit("repair_compared", repairs.Compared.Load())
		emit("repair_taken", repairs.Taken.Load())
		emit("repair_reconciled", repairs.Reconciled.Load())
		emit("repair_failed", repairs.Failed.Load())
		emit("repair_purged", repairs.Purged.Load())
		emit("diverged_leaves", uint64(repairs.Diverged.Load()))
		emit("repair_missed", uint64(repairs.Missed.Load()))
		emit("repair_passes", repairs.Passes.Load())
		hints := d.hints.Counters()
		emit("hints", uint64(d.hints.Waiting()))
		emit("hints_added", hints.Added.Load())
		emit("hints_dropped", hints.Dropped.Load())
		emit("hints_handed_off", hints.HandedOff.Load())
		emit("hints_forgotten", hints.Forgotten.Load())
		if m := d.mover.Load(); m != nil {
			t := m.Counters()
			emit("transfer_records", t.Records.Load())
			emit("transfer_bytes", t.Bytes.Load())
			emit("transfer_loaded_records", t.LoadedRecords.Load())
			emit("transfer_loaded_bytes", t.LoadedBytes.Load())
			emit("transfer_partitions", t.Pulled.Load())
			emit("transfer_moves_ended", t.Ended.Load())
			emit("transfer_moves_undone", t.Undone.Load())
		}
	}
	m := n.membership.Stats()
	emit("discovery_failures", m.FindFailures)
	emit("join_failures", m.JoinFailures)
	emit("refused_nodes", m.Refused)
	n.measureStore(emit)
	n.measureBackups(emit)
}
