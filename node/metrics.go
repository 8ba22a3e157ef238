package node

import (
	"encoding/hex"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"kai/node/flight"
	"kai/node/memcache"
	"kai/node/ring"
	"kai/node/store"
)

// metric is one name at /metrics. Those with a stat show a number of stats; the others have labels, or only make sense over time.
type metric struct {
	name   string // without kai_
	kind   prometheus.ValueType
	help   string
	stat   string  // name in stats, without kai_
	scale  float64 // of the number in stats; 0: 1
	labels []string
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
	// histogram: it is made in another way.
	histogram = prometheus.UntypedValue
)

// metrics are all that Kai itself serves, in the order in which METRICS.md explains them; a test holds that page against it. What is
// in stats has there the same name, without _total; a name of the ancestor stays.
var metrics = []metric{
	{name: "command_duration_seconds", kind: histogram, labels: []string{"command", "outcome"},
		help: "Commands of clients by how long they took, from when they were read to when their reply was made: a histogram. Outcomes: ok, miss, refused (not stored, exists, not a number, too large), unavailable (not applied), unknown, corrupt."},
	{name: "connections", kind: gauge, help: "Open connections of clients."},
	{name: "connections_total", kind: counter, help: "Connections of clients since the start."},
	{name: "connections_rejected_total", kind: counter, help: "Connections turned away because KAI_MAX_CONNECTIONS were open."},
	{name: "received_bytes_total", kind: counter, help: "Bytes read from clients."},
	{name: "sent_bytes_total", kind: counter, help: "Bytes written to clients."},
	{name: "oversized_values_total", kind: counter, help: "Values refused because they were larger than KAI_MAX_VALUE_BYTES."},

	{name: "gets_total", stat: "gets", kind: counter, help: "Keys read through this node as a coordinator."},
	{name: "mutations_total", stat: "mutations", kind: counter, help: "Mutations that this node was asked for by clients."},
	{name: "forwarded_total", stat: "forwarded", kind: counter, help: "Mutations that this node forwarded to the partition's first live member."},
	{name: "unreconciled_gets_total", stat: "unreconciled_get", kind: counter, help: "Gets whose replicas did not agree, so that they took more than one round trip."},
	{name: "write_backs_total", stat: "write_backs", kind: counter, help: "States that a get wrote back so that a write quorum holds them."},
	{name: "hedged_reads_total", stat: "hedged_reads", kind: counter, help: "Gets that asked another replica because one was slow."},
	{name: "rounds_total", stat: "rounds", kind: counter, help: "Rounds of the protocol that had to prepare first: two round trips."},
	{name: "sticky_rounds_total", stat: "sticky_rounds", kind: counter, help: "Rounds in one round trip, by the promise of the round before."},
	{name: "round_retries_total", stat: "round_retries", kind: counter, help: "Rounds tried again because another coordinator was in between."},
	{name: "seals_total", stat: "seals", kind: counter, help: "Proposals that were sealed, so that they can never be chosen, to say not applied for sure."},
	{name: "partition_promises_total", stat: "partition_promises", kind: counter, help: "Promises of whole partitions asked for."},
	{name: "partition_promise_rounds_total", stat: "partition_promise_rounds", kind: counter, help: "Rounds in one round trip by the promise of a whole partition."},
	{name: "outcomes_unknown_total", stat: "outcome_unknown", kind: counter, help: "Mutations whose outcome could not be decided in time."},
	{name: "unavailable_total", stat: "unavailable", kind: counter, help: "Requests refused because no quorum answered: certainly not applied."},
	{name: "folded_mutations_total", stat: "folded_mutations", kind: counter, help: "Mutations that shared the round of another one of the same key."},
	{name: "unreachable_partitions", stat: "unreachable_partitions", kind: gauge, help: "Partitions of which no quorum is reachable from this node now."},

	{name: "requests_kept_total", kind: counter, labels: []string{"class"}, help: "Requests kept for kai trace, by class: slow, failed, diverged, sampled, hinted."},
	{name: "spans_ended_total", kind: counter, help: "Spans made of kept requests for export by OTLP."},
	{name: "spans_exported_total", kind: counter, help: "Spans that a collector has taken."},
	{name: "spans_failed_total", kind: counter, help: "Spans that no collector took. What has ended and is neither waits, or was dropped because the queue was full."},
	{name: "requests_not_exported_total", kind: counter, help: "Kept requests that became no spans because too many waited."},
	{name: "requests_not_kept_total", kind: counter, labels: []string{"class"}, help: "Requests of a class that were too many in their second to be kept."},

	{name: "replica_reads_total", stat: "replica_reads", kind: counter, help: "Reads that this node's replica answered."},
	{name: "replica_prepares_total", stat: "replica_prepares", kind: counter, help: "Prepares that this node's replica answered."},
	{name: "replica_accepts_total", stat: "replica_accepts", kind: counter, help: "Accepts that this node's replica answered."},
	{name: "replica_nacks_total", stat: "replica_nacks", kind: counter, help: "Ballots refused because a higher one was promised."},
	{name: "replica_clock_rejects_total", stat: "replica_clock_rejects", kind: counter, help: "Ballots refused because they were too far ahead of this node's clock."},
	{name: "replica_wrong_epochs_total", stat: "replica_wrong_epochs", kind: counter, help: "Requests refused because they went by another configuration."},
	{name: "replica_corrupt_records_total", stat: "replica_corrupt_records", kind: counter, help: "Records that failed their checksum when they were asked for."},
	{name: "replica_disk_reads_total", stat: "replica_disk_reads", kind: counter, help: "Requests that had to read the disk."},

	{name: "repair_compared_total", stat: "repair_compared", kind: counter, help: "Comparisons of a partition with another replica."},
	{name: "repair_taken_total", stat: "repair_taken", kind: counter, help: "Records taken over from another replica."},
	{name: "repair_reconciled_total", stat: "repair_reconciled", kind: counter, help: "Records that took a quorum read to repair."},
	{name: "repair_failed_total", stat: "repair_failed", kind: counter, help: "Comparisons that did not end."},
	{name: "repair_purged_total", stat: "repair_purged", kind: counter, help: "Dead records that were forgotten."},
	{name: "repair_passes_total", stat: "repair_passes", kind: counter, help: "Passes over all partitions that ended."},
	{name: "diverged_leaves", stat: "diverged_leaves", kind: gauge, help: "Leaves that differed from another replica's in the last pass; 0: all alike."},
	{name: "repair_missed", stat: "repair_missed", kind: gauge, help: "Comparisons that the last pass could not make or end; diverged_leaves says nothing of those."},
	{name: "hints", stat: "hints", kind: gauge, help: "Keys that wait to be told to a node that missed their write."},
	{name: "peer_hints", kind: gauge, labels: []string{"peer"}, help: "Of those, by the node that is behind; missing if it is not."},
	{name: "hints_added_total", stat: "hints_added", kind: counter, help: "Hints noted."},
	{name: "hints_dropped_total", stat: "hints_dropped", kind: counter, help: "Hints dropped because there were too many; a comparison finds those."},
	{name: "hints_handed_off_total", stat: "hints_handed_off", kind: counter, help: "Hints that their node has taken over."},
	{name: "hints_forgotten_total", stat: "hints_forgotten", kind: counter, help: "Hints of nodes that are no member any more."},

	{name: "transfer_records_total", stat: "transfer_records", kind: counter, help: "Records taken over from peers for partitions that moved here."},
	{name: "transfer_bytes_total", stat: "transfer_bytes", kind: counter, help: "Bytes of those."},
	{name: "transfer_loaded_records_total", stat: "transfer_loaded_records", kind: counter, help: "Records loaded from the newest snapshot for partitions that moved here."},
	{name: "transfer_loaded_bytes_total", stat: "transfer_loaded_bytes", kind: counter, help: "Bytes of those."},
	{name: "transfer_partitions_total", stat: "transfer_partitions", kind: counter, help: "Partitions that this node has all of after a move."},
	{name: "transfer_moves_ended_total", stat: "transfer_moves_ended", kind: counter, help: "Moves that this node drove to their end."},
	{name: "transfer_moves_undone_total", stat: "transfer_moves_undone", kind: counter, help: "Moves that were undone because a new member was gone."},
	{name: "moving_partitions", kind: gauge, help: "Partitions on their way to other nodes, as this node knows."},

	{name: "discovery_failures_total", stat: "discovery_failures", kind: counter, help: "Look-ups of peers that failed."},
	{name: "join_failures_total", stat: "join_failures", kind: counter, help: "Addresses found that did not answer."},
	{name: "refused_nodes_total", stat: "refused_nodes", kind: counter, help: "Nodes refused: of another cluster, with other settings, or with a disk that was set back."},
	{name: "nodes", kind: gauge, labels: []string{"state"}, help: "Nodes that this one knows, by state: alive, draining or dead."},
	{name: "under_replicated_partitions", kind: gauge, help: "Partitions with fewer live replicas than the quorum setting asks for."},
	{name: "lost_partitions", kind: gauge, help: "Partitions of which too many nodes are gone for good: see kai recover."},
	{name: "ready", kind: gauge, help: "1 if this node may take traffic, as /readyz says."},

	{name: "store_puts_total", stat: "store_puts", kind: counter, help: "Entries committed to the log."},
	{name: "store_refused_total", stat: "store_refused", kind: counter, help: "Entries refused: busy, full, failed or closed."},
	{name: "store_batches_total", stat: "store_batches", kind: counter, help: "Writes to the log; each has the entries that came meanwhile."},
	{name: "store_syncs_total", stat: "store_syncs", kind: counter, help: "Waits for the disk."},
	{name: "store_sync_seconds_total", stat: "store_sync_micros", scale: 1e-6, kind: counter, help: "How long those took, in all."},
	{name: "store_sync_duration_seconds", kind: histogram, help: "Waits for the disk, by how long they took: a histogram. An acknowledgement under KAI_DURABILITY=always has one in it, at each of W nodes."},
	{name: "store_log_bytes_total", stat: "store_log_bytes", kind: counter, help: "Bytes written to the log."},
	{name: "store_applied_total", stat: "store_applied", kind: counter, help: "Rows moved from the log to the table."},
	{name: "store_stalls_total", stat: "store_stalls", kind: counter, help: "Waits of commits for the table."},
	{name: "store_cache_hits_total", stat: "store_cache_hits", kind: counter, help: "Look-ups answered from memory."},
	{name: "store_cache_misses_total", stat: "store_cache_misses", kind: counter, help: "Look-ups that memory could not answer."},
	{name: "store_corrupt_total", stat: "store_corrupt", kind: counter, help: "Damaged records met on the disk, by whatever read them."},
	{name: "store_overlay_bytes", stat: "store_overlay_bytes", kind: gauge, help: "Memory of what is not in the table yet."},
	{name: "store_segments", stat: "store_segments", kind: gauge, help: "Files of the log that the table does not have yet."},
	{name: "store_level_bytes", kind: gauge, labels: []string{"level"}, help: "Size of a level of the table (Badger)."},
	{name: "store_level_files", kind: gauge, labels: []string{"level"}, help: "Files of a level of the table."},
	{name: "store_level_score", kind: gauge, labels: []string{"level"}, help: "How full a level is; above 1 it waits for compaction."},
	{name: "store_failed", kind: gauge, help: "1 once the disk has failed: this node does not vote any more."},
	{name: "store_full", kind: gauge, help: "1 while the disk is so full that writes are refused."},
	{name: "disk_size_bytes", kind: gauge, help: "Size of the file system of the data directory."},
	{name: "disk_free_bytes", kind: gauge, help: "What is free of it for this process."},

	{name: "peer_up", kind: gauge, labels: []string{"peer"}, help: "1 if the link to a node works."},
	{name: "peer_rtt_seconds", kind: gauge, labels: []string{"peer"}, help: "Moving average of round trips to a node."},
	{name: "peer_timeouts_total", kind: counter, labels: []string{"peer"}, help: "Calls to a node without an answer in time."},
	{name: "peer_busy_total", kind: counter, labels: []string{"peer"}, help: "Calls to a node turned away because a queue was full."},
	{name: "peer_hedged_total", kind: counter, labels: []string{"peer"}, help: "Gets that asked another replica because this node was slow to answer."},
	{name: "peer_connects_total", kind: counter, labels: []string{"peer"}, help: "Links made to a node; more than one: it was made anew."},
	{name: "peer_pending", kind: gauge, labels: []string{"peer"}, help: "Calls to a node that wait for an answer."},

	{name: "backup_age_seconds", stat: "backup_age_seconds", kind: gauge, help: "Time since the cut of the newest complete snapshot; missing while none is known."},
	{name: "backup_snapshots_total", stat: "backup_snapshots", kind: counter, help: "Snapshots that were completed with this node's part."},
	{name: "backup_failures_total", stat: "backup_failures", kind: counter, help: "Attempts of this node that failed."},
	{name: "backup_bytes_total", stat: "backup_bytes", kind: counter, help: "Bytes that this node uploaded."},
	{name: "backup_puts_total", stat: "backup_puts", kind: counter, help: "Objects that this node wrote."},
	{name: "backup_partitions_total", stat: "backup_partitions", kind: counter, help: "Partitions that this node uploaded."},
	{name: "backup_leaves_total", stat: "backup_leaves", kind: counter, help: "Leaves of those."},
	{name: "backup_unchanged_leaves_total", stat: "backup_unchanged_leaves", kind: counter, help: "Leaves that had not changed since the snapshot before, and were not uploaded."},
	{name: "backup_interval_seconds", kind: gauge, help: "KAI_BACKUP_INTERVAL; missing without snapshots by themselves."},

	{name: "node_info", kind: gauge, labels: []string{"node_id", "cluster", "zone", "version", "go_version"}, help: "Always 1; says who this is."},
}

// collector reads the numbers of a node when it is asked for them.
type collector struct {
	n     *node
	descs map[string]*prometheus.Desc // by name
	stats map[string]*metric          // by stat
}

// newRegistry has n's metrics, and those of Go and of the process.
func newRegistry(n *node) *prometheus.Registry {
	c := &collector{n: n, descs: map[string]*prometheus.Desc{}, stats: map[string]*metric{}}
	for i := range metrics {
		m := &metrics[i]
		c.descs[m.name] = prometheus.NewDesc("kai_"+m.name, m.help, m.labels, nil)
		if m.stat != "" {
			c.stats[m.stat] = m
		}
	}
	r := prometheus.NewRegistry()
	r.MustRegister(c, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	kinds := map[string]prometheus.ValueType{}
	for i := range metrics {
		kinds[metrics[i].name] = metrics[i].kind
	}
	emit := func(name string, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(c.descs[name], kinds[name], v, labels...)
	}
	c.n.measure(func(stat string, v uint64) {
		if m := c.stats[stat]; m != nil {
			scale := m.scale
			if scale == 0 {
				scale = 1
			}
			emit(m.name, float64(v)*scale)
		}
	})
	c.clients(emit, to)
	c.n.flights.Counts(func(class string, kept, dropped uint64) {
		emit("requests_kept_total", float64(kept), class)
		emit("requests_not_kept_total", float64(dropped), class)
	})
	if c.n.opts.Spans != nil {
		ended, exported, failed := c.n.opts.Spans()
		emit("spans_ended_total", float64(ended))
		emit("spans_exported_total", float64(exported))
		emit("spans_failed_total", float64(failed))
	}
	emit("requests_not_exported_total", float64(c.n.notExported.Load()))
	if d := c.n.data.Load(); d != nil {
		d.hints.Each(func(peer ring.NodeID, keys int) { emit("peer_hints", float64(keys), string(peer)) })
	}
	c.cluster(emit)
	c.disk(emit, to)
	for _, link := range c.n.links.sorted() {
		s, peer := link.Stats(), string(link.Node())
		emit("peer_up", one(link.Healthy()), peer)
		emit("peer_rtt_seconds", s.RTT.Seconds(), peer)
		emit("peer_timeouts_total", float64(s.Timeouts), peer)
		emit("peer_busy_total", float64(s.Busy), peer)
		emit("peer_hedged_total", float64(s.Hedged), peer)
		emit("peer_connects_total", float64(s.Connects), peer)
		emit("peer_pending", float64(s.Pending), peer)
	}
	if c.n.cfg.BackupURL != "" && c.n.cfg.BackupInterval > 0 {
		emit("backup_interval_seconds", c.n.cfg.BackupInterval.Seconds())
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c *collector) clients(emit func(string, float64, ...string), to chan<- prometheus.Metric) {
	s, examples := c.n.clients, c.examples()
	s.Latencies(func(command, outcome string, buckets []uint64, sum float64) {
		upTo, count := map[float64]uint64{}, uint64(0)
		for b, n := range buckets {
			if count += n; b < len(memcache.LatencyBounds) {
				upTo[memcache.LatencyBounds[b]] = count
			}
		}
		m := prometheus.MustNewConstHistogram(c.descs["command_duration_seconds"], count, sum, upTo, command, outcome)
		if e := examples[[2]string{command, outcome}]; len(e) > 0 {
			// Who asks for the old format does not see them.
			if with, err := prometheus.NewMetricWithExemplars(m, slices.Collect(maps.Values(e))...); err == nil {
				m = with
			}
		}
		to <- m
	})
	emit("connections", float64(s.Connections()))
	names := map[string]string{"total_connections": "connections_total", "rejected_connections": "connections_rejected_total",
		"bytes_read": "received_bytes_total", "bytes_written": "sent_bytes_total", "store_too_large": "oversized_values_total"}
	s.Counters(func(name string, v uint64) {
		if name, ok := names[name]; ok {
			emit(name, float64(v))
		}
	})
}

// examples are kept requests of clients, by command and outcome, and by their bucket: of each the newest. They cost nothing until somebody asks.
func (c *collector) examples() map[[2]string]map[int]prometheus.Exemplar {
	all := map[[2]string]map[int]prometheus.Exemplar{}
	c.n.flights.Each(func(f *flight.Flight) {
		if f.Forwarded {
			return
		}
		of := [2]string{f.Op.String(), memcache.OutcomeOf(f.Status)}
		if all[of] == nil {
			all[of] = map[int]prometheus.Exemplar{}
		}
		took := f.Took.Seconds()
		bucket, _ := slices.BinarySearch(memcache.LatencyBounds[:], took)
		if at := f.Began.Add(f.Took); at.After(all[of][bucket].Timestamp) {
			all[of][bucket] = prometheus.Exemplar{Value: took, Timestamp: at, Labels: prometheus.Labels{"trace_id": f.Trace(), "span_id": hex.EncodeToString(f.Context[16:24])}}
		}
	})
	return all
}

func (c *collector) cluster(emit func(string, float64, ...string)) {
	st := source{c.n}.status()
	states := map[string]int{"alive": 0, "draining": 0, "dead": 0}
	for _, node := range st.Nodes {
		switch {
		case !node.Alive:
			states["dead"]++
		case node.Draining:
			states["draining"]++
		default:
			states["alive"]++
		}
	}
	for state, count := range states {
		emit("nodes", float64(count), state)
	}
	emit("under_replicated_partitions", float64(st.UnderReplicated.Partitions))
	emit("lost_partitions", float64(st.Lost))
	emit("moving_partitions", float64(st.Moving))
	ready, _ := source{c.n}.Ready()
	emit("ready", one(ready))
	emit("node_info", 1, string(c.n.identity.Node), c.n.cfg.Cluster, c.n.cfg.Zone, c.n.opts.Version, runtime.Version())
}

func (c *collector) disk(emit func(string, float64, ...string), to chan<- prometheus.Metric) {
	emit("store_failed", one(c.n.storeFault.Load() != nil))
	stats := c.n.store.Stats()
	emit("store_full", one(stats.Full))
	for _, l := range c.n.store.Levels() {
		level := strconv.Itoa(l.Level)
		emit("store_level_bytes", float64(l.Bytes), level)
		emit("store_level_files", float64(l.Tables), level)
		emit("store_level_score", l.Score, level)
	}
	upTo, count := map[float64]uint64{}, uint64(0)
	for i, n := range stats.SyncBuckets {
		if count += uint64(n); i < len(store.SyncBounds) {
			upTo[store.SyncBounds[i].Seconds()] = count
		}
	}
	to <- prometheus.MustNewConstHistogram(c.descs["store_sync_duration_seconds"], count, stats.SyncTime.Seconds(), upTo)
	var fs syscall.Statfs_t
	if syscall.Statfs(c.n.cfg.DataDir, &fs) == nil {
		emit("disk_size_bytes", float64(fs.Blocks)*float64(fs.Bsize))
		emit("disk_free_bytes", float64(fs.Bavail)*float64(fs.Bsize))
	}
}
