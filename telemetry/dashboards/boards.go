package dashboards

import "fmt"

func rate(metric string, by string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s{%s}[$__rate_interval]))", by, metric, of)
}

func sum(metric, by string) string { return fmt.Sprintf("sum by (%s) (%s{%s})", by, metric, of) }

func most(metric string) string { return fmt.Sprintf("max(%s{%s})", metric, of) }

// quantile of commands that a selector chooses.
func quantile(q float64, by, selector string) string {
	return fmt.Sprintf("histogram_quantile(%g, sum by (le%s) (rate(kai_command_duration_seconds_bucket{%s%s}[$__rate_interval])))", q, by, of, selector)
}

const (
	commands = "kai_command_duration_seconds_count"
	failed   = `,outcome=~"unavailable|unknown|corrupt"`
)

func ratio(window string) string {
	return fmt.Sprintf("sum(rate(%s{%s%s}[%s])) / sum(rate(%s{%s}[%s]))", commands, of, failed, window, commands, of, window)
}

// boards by the names of their files.
var boards = map[string]board{
	"overview": {"Overview and objectives", "Is all well? Start here.", []panel{
		{title: "Nodes ready", unit: "none", stat: true, queries: []query{{sum("kai_ready", "job"), "{{job}}"}}},
		{title: "Errors, last hour", unit: "percentunit", stat: true, thresholds: []float64{0.001, 0.0144}, about: "The objective is less than 0.1 % over 30 days.", queries: []query{{ratio("1h"), ""}}},
		{title: "Partitions without a quorum", unit: "none", stat: true, thresholds: []float64{1}, queries: []query{{most("kai_unreachable_partitions"), ""}}},
		{title: "Under-replicated", unit: "none", stat: true, thresholds: []float64{1, 1e9}, queries: []query{{most("kai_under_replicated_partitions"), ""}}},
		{title: "Lost", unit: "none", stat: true, thresholds: []float64{1}, queries: []query{{most("kai_lost_partitions"), ""}}},
		{title: "Newest snapshot", unit: "s", stat: true, thresholds: []float64{7200, 10800}, queries: []query{{fmt.Sprintf("min(kai_backup_age_seconds{%s})", of), ""}}},
		{title: "Commands", unit: "ops", stacked: true, queries: []query{{rate(commands, "command"), "{{command}}"}}},
		{title: "Errors by outcome", unit: "ops", about: "unavailable: certainly not applied. unknown: it may be. corrupt: no sound replica was left.", queries: []query{
			{fmt.Sprintf("sum by (outcome) (rate(%s{%s%s}[$__rate_interval]))", commands, of, failed), "{{outcome}}"}}},
		{title: "Gets: how long", unit: "s", queries: []query{{quantile(0.5, "", `,command="get"`), "p50"}, {quantile(0.99, "", `,command="get"`), "p99"}, {quantile(0.999, "", `,command="get"`), "p99.9"}}},
		{title: "Mutations: how long", unit: "s", queries: []query{{quantile(0.5, "", `,command!="get"`), "p50"}, {quantile(0.99, "", `,command!="get"`), "p99"}, {quantile(0.999, "", `,command!="get"`), "p99.9"}}},
		{title: "Budget burnt", unit: "none", about: "1: as fast as the objective allows for 30 days. 14.4 over an hour pages.", queries: []query{{ratio("1h") + " / 0.001", "1 h"}, {ratio("6h") + " / 0.001", "6 h"}}},
		{title: "Nodes by state", unit: "none", stacked: true, about: "As the node that sees most of each sees it.", queries: []query{{fmt.Sprintf("max by (state) (kai_nodes{%s})", of), "{{state}}"}}},
		{title: "Versions", unit: "none", stacked: true, queries: []query{{sum("kai_node_info", "version"), "{{version}}"}}},
	}},
	"quorum": {"Quorum", "Which replica makes requests slow, and do replicas agree?", []panel{
		{title: "Round trips to each peer, as the others measure them", unit: "s", about: "A node that stands out is slow, or far.", queries: []query{{fmt.Sprintf("max by (peer) (kai_peer_rtt_seconds{%s})", of), "{{peer}}"}}},
		{title: "Hedged gets, by the replica that was slow", unit: "ops", about: "Gets that asked another replica because this one had not answered. A burst is a replica that hung.", queries: []query{{rate("kai_peer_hedged_total", "peer"), "{{peer}}"}}},
		{title: "Gets that found replicas to differ", unit: "percentunit", queries: []query{{
			fmt.Sprintf("sum by (instance) (rate(kai_unreconciled_gets_total{%s}[$__rate_interval])) / sum by (instance) (rate(kai_gets_total{%s}[$__rate_interval]))", of, of), "{{instance}}"}}},
		{title: "Timeouts of calls to a peer", unit: "ops", queries: []query{{rate("kai_peer_timeouts_total", "peer"), "{{peer}}"}}},
		{title: "Calls that wait for a peer", unit: "none", queries: []query{{fmt.Sprintf("max by (peer) (kai_peer_pending{%s})", of), "{{peer}}"}}},
		{title: "Links down", unit: "none", queries: []query{{fmt.Sprintf("count by (peer) (kai_peer_up{%s} == 0)", of), "{{peer}}"}}},
		{title: "Rounds", unit: "ops", stacked: true, about: "One round trip by a promise of the key or of its partition, or two.", queries: []query{
			{rate("kai_sticky_rounds_total", ""), "one, promise of the key"}, {rate("kai_partition_promise_rounds_total", ""), "one, promise of the partition"}, {rate("kai_rounds_total", ""), "two"}}},
		{title: "Rounds tried again", unit: "ops", about: "Two coordinators at one key.", queries: []query{{rate("kai_round_retries_total", "instance"), "{{instance}}"}}},
		{title: "Refusals of replicas", unit: "ops", queries: []query{
			{rate("kai_replica_nacks_total", ""), "a higher ballot"}, {rate("kai_replica_wrong_epochs_total", ""), "another configuration"}, {rate("kai_replica_clock_rejects_total", ""), "clock"}}},
		{title: "Not decided", unit: "ops", queries: []query{{rate("kai_unavailable_total", ""), "unavailable"}, {rate("kai_outcomes_unknown_total", ""), "unknown"}, {rate("kai_seals_total", ""), "sealed"}}},
		{title: "Requests kept for kai trace", unit: "ops", about: "By what made them worth it. A request of several classes counts in each.", queries: []query{{rate("kai_requests_kept_total", "class"), "{{class}}"}}},
		{title: "Mutations forwarded", unit: "ops", queries: []query{{rate("kai_forwarded_total", "instance"), "{{instance}}"}}},
		{title: "Write-backs", unit: "ops", queries: []query{{rate("kai_write_backs_total", "instance"), "{{instance}}"}}},
	}},
	"node": {"Node", "Disk, memory and processor of each node.", []panel{
		{title: "Disk free", unit: "percentunit", queries: []query{{fmt.Sprintf("kai_disk_free_bytes{%s} / kai_disk_size_bytes{%s}", of, of), "{{instance}}"}}},
		{title: "Waits for the disk: how long", unit: "s", about: "99 of 100 are shorter.", queries: []query{{
			fmt.Sprintf("histogram_quantile(0.99, sum by (le, instance) (rate(kai_store_sync_duration_seconds_bucket{%s}[$__rate_interval])))", of), "{{instance}}"}}},
		{title: "Entries that share a wait", unit: "none", queries: []query{{
			fmt.Sprintf("rate(kai_store_puts_total{%s}[$__rate_interval]) / rate(kai_store_batches_total{%s}[$__rate_interval])", of, of), "{{instance}}"}}},
		{title: "Log written", unit: "Bps", queries: []query{{rate("kai_store_log_bytes_total", "instance"), "{{instance}}"}}},
		{title: "Not in the table yet", unit: "bytes", queries: []query{{sum("kai_store_overlay_bytes", "instance"), "{{instance}}"}}},
		{title: "Waits of commits for the table", unit: "ops", queries: []query{{rate("kai_store_stalls_total", "instance"), "{{instance}}"}}},
		{title: "Table", unit: "bytes", stacked: true, queries: []query{{sum("kai_store_level_bytes", "instance"), "{{instance}}"}}},
		{title: "Compaction is behind", unit: "none", about: "The fullest level, in multiples of what it should have. Far above 1 for long: the disk is too slow for what is written.", queries: []query{{fmt.Sprintf("max by (instance) (kai_store_level_score{%s})", of), "{{instance}}"}}},
		{title: "Reads from memory", unit: "percentunit", queries: []query{{
			fmt.Sprintf("sum by (instance) (rate(kai_store_cache_hits_total{%s}[$__rate_interval])) / (sum by (instance) (rate(kai_store_cache_hits_total{%s}[$__rate_interval])) + sum by (instance) (rate(kai_store_cache_misses_total{%s}[$__rate_interval])))", of, of, of), "{{instance}}"}}},
		{title: "Refused, damaged", unit: "ops", queries: []query{{rate("kai_store_refused_total", "instance"), "{{instance}} refused"}, {rate("kai_store_corrupt_total", "instance"), "{{instance}} damaged"}}},
		{title: "Disks that failed or are full", unit: "none", queries: []query{{sum("kai_store_failed", "instance") + " > 0", "{{instance}} failed"}, {sum("kai_store_full", "instance") + " > 0", "{{instance}} full"}}},
		{title: "Processor", unit: "none", about: "Cores in use.", queries: []query{{rate("process_cpu_seconds_total", "instance"), "{{instance}}"}}},
		{title: "Memory", unit: "bytes", queries: []query{{sum("process_resident_memory_bytes", "instance"), "{{instance}}"}}},
		{title: "Goroutines", unit: "none", queries: []query{{sum("go_goroutines", "instance"), "{{instance}}"}}},
	}},
	"background": {"Repair, moves and backups", "What goes on beside clients, and is it keeping up?", []panel{
		{title: "Leaves that differ", unit: "none", about: "In the last pass. A few under load are writes on their way.", queries: []query{{sum("kai_diverged_leaves", "instance"), "{{instance}}"}}},
		{title: "Hints that wait, by the replica that is behind", unit: "none", queries: []query{{sum("kai_peer_hints", "peer"), "{{peer}}"}}},
		{title: "Hints", unit: "ops", queries: []query{{rate("kai_hints_added_total", ""), "added"}, {rate("kai_hints_handed_off_total", ""), "handed off"}, {rate("kai_hints_dropped_total", ""), "dropped"}, {rate("kai_hints_forgotten_total", ""), "forgotten"}}},
		{title: "Records repaired", unit: "ops", queries: []query{{rate("kai_repair_taken_total", "instance"), "{{instance}} taken over"}, {rate("kai_repair_reconciled_total", "instance"), "{{instance}} by a quorum"}}},
		{title: "Comparisons", unit: "ops", queries: []query{{rate("kai_repair_compared_total", ""), "made"}, {rate("kai_repair_failed_total", ""), "failed"}}},
		{title: "Comparisons missed in the last pass", unit: "none", queries: []query{{sum("kai_repair_missed", "instance"), "{{instance}}"}}},
		{title: "Dead records forgotten", unit: "ops", queries: []query{{rate("kai_repair_purged_total", "instance"), "{{instance}}"}}},
		{title: "Partitions that move", unit: "none", queries: []query{{most("kai_moving_partitions"), "moving"}}},
		{title: "Bytes taken over", unit: "Bps", stacked: true, queries: []query{{rate("kai_transfer_bytes_total", "instance"), "{{instance}} from peers"}, {rate("kai_transfer_loaded_bytes_total", "instance"), "{{instance}} from the bucket"}}},
		{title: "Age of the newest snapshot", unit: "s", queries: []query{{fmt.Sprintf("min by (job) (kai_backup_age_seconds{%s})", of), "{{job}}"}, {fmt.Sprintf("max by (job) (kai_backup_interval_seconds{%s})", of), "{{job}} interval"}}},
		{title: "Uploaded", unit: "Bps", queries: []query{{rate("kai_backup_bytes_total", "instance"), "{{instance}}"}}},
		{title: "Attempts that failed", unit: "none", queries: []query{{fmt.Sprintf("sum by (instance) (increase(kai_backup_failures_total{%s}[1h]))", of), "{{instance}}"}}},
		{title: "Leaves that snapshots need not upload again", unit: "percentunit", queries: []query{{
			fmt.Sprintf("sum(increase(kai_backup_unchanged_leaves_total{%s}[6h])) / sum(increase(kai_backup_leaves_total{%s}[6h]))", of, of), "unchanged"}}},
		{title: "Discovery and joins that failed", unit: "ops", queries: []query{{rate("kai_discovery_failures_total", "instance"), "{{instance}} look-ups"}, {rate("kai_join_failures_total", "instance"), "{{instance}} joins"}}},
	}},
	"memcache": {"Memcache", "What clients ask for, and what they get.", []panel{
		{title: "Commands", unit: "ops", stacked: true, queries: []query{{rate(commands, "command"), "{{command}}"}}},
		{title: "Outcomes", unit: "ops", stacked: true, queries: []query{{rate(commands, "outcome"), "{{outcome}}"}}},
		{title: "Gets that hit", unit: "percentunit", queries: []query{{
			fmt.Sprintf(`sum(rate(%s{%s,command="get",outcome="ok"}[$__rate_interval])) / sum(rate(%s{%s,command="get"}[$__rate_interval]))`, commands, of, commands, of), "hits"}}},
		{title: "p99 by command", unit: "s", queries: []query{{quantile(0.99, ", command", ""), "{{command}}"}}},
		{title: "p99 by node", unit: "s", queries: []query{{quantile(0.99, ", instance", ""), "{{instance}}"}}},
		{title: "Connections", unit: "none", stacked: true, queries: []query{{sum("kai_connections", "instance"), "{{instance}}"}}},
		{title: "Connections opened and turned away", unit: "ops", queries: []query{{rate("kai_connections_total", ""), "opened"}, {rate("kai_connections_rejected_total", ""), "turned away"}}},
		{title: "Traffic", unit: "Bps", queries: []query{{rate("kai_received_bytes_total", ""), "from clients"}, {rate("kai_sent_bytes_total", ""), "to clients"}}},
		{title: "Values too large", unit: "ops", queries: []query{{rate("kai_oversized_values_total", "instance"), "{{instance}}"}}},
		{title: "Keys read and changed, by coordinator", unit: "ops", queries: []query{{rate("kai_gets_total", "instance"), "{{instance}} gets"}, {rate("kai_mutations_total", "instance"), "{{instance}} mutations"}}},
	}},
}
