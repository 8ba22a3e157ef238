package main

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"kai/node/message"
	"kai/node/placement"
	"kai/node/quorum"
	"kai/node/ring"
)

const (
	vnodes   = 128 // KAI_VNODES, unless set
	attempts = 3   // the best counts: the machine has other work
)

var rw = ring.Quorum{N: 3, R: 2, W: 2}

func makeNodes(n int, zones int) []ring.Weighted {
	nodes := make([]ring.Weighted, n)
	for i := range nodes {
		nodes[i].ID = ring.NodeID(fmt.Sprintf("%016x", 0x9e3779b97f4a7c15*uint64(i+1)))
		nodes[i].Zone = string(rune('a' + i%zones))
	}
	return nodes
}

// best is the shortest time of some attempts, in seconds.
func best(f func()) float64 {
	shortest := time.Duration(1<<63 - 1)
	for range attempts {
		began := time.Now()
		f()
		shortest = min(shortest, time.Since(began))
	}
	return shortest.Seconds()
}

// heap is the memory that what build returns takes, in bytes.
func heap[T any](build func() T) float64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	kept := build()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	return float64(after.HeapAlloc) - float64(before.HeapAlloc)
}

// studyMap measures all that a node keeps, computes and sends because it knows where everything is.
func studyMap(f *figures, nodes, partitions int) {
	add := func(measure string, value float64, unit string) { f.add(measure, nodes, partitions, value, unit) }
	all := makeNodes(nodes+10, 1)
	lists := ring.WeightedLists(all[:nodes], partitions, rw.N, vnodes)
	add("ring_time", best(func() { ring.WeightedLists(all[:nodes], partitions, rw.N, vnodes) })*1e3, "ms")
	add("ring_spread", spread(lists, nodes), "most by mean")

	confs := configurations(lists)
	confs = configurations(plan(confs, all[:nodes]))
	add("plan_spread", spread(members(confs), nodes), "most by mean")
	studyChanges(add, confs, all, nodes)
	studyTable(add, confs)
	studyExchange(add, confs)
}

func configurations(lists [][]ring.NodeID) []ring.Configuration {
	confs := make([]ring.Configuration, len(lists))
	for p := range confs {
		confs[p] = ring.Configuration{Epoch: 1, Members: lists[p]}
	}
	return confs
}

func members(confs []ring.Configuration) [][]ring.NodeID {
	lists := make([][]ring.NodeID, len(confs))
	for p := range lists {
		lists[p] = confs[p].Members
	}
	return lists
}

func plan(confs []ring.Configuration, nodes []ring.Weighted) [][]ring.NodeID {
	return placement.Plan(confs, ring.WeightedLists(nodes, len(confs), rw.N, vnodes), nodes, rw.N)
}

// spread is what the fullest of n nodes holds, by the mean.
func spread(lists [][]ring.NodeID, n int) float64 {
	held, all := map[ring.NodeID]int{}, 0
	for _, list := range lists {
		for _, id := range list {
			held[id]++
			all++
		}
	}
	most := 0
	for _, h := range held {
		most = max(most, h)
	}
	return float64(most) * float64(n) / float64(all)
}

// moved counts the replicas of after at nodes that had none before.
func moved(before, after [][]ring.NodeID) (count int) {
	for p := range after {
		for _, id := range after[p] {
			if !slices.Contains(before[p], id) {
				count++
			}
		}
	}
	return count
}

// studyChanges has one node join, ten join, and one die, and counts what moves.
func studyChanges(add func(string, float64, string), confs []ring.Configuration, all []ring.Weighted, nodes int) {
	replicas := float64(len(confs) * min(rw.N, nodes))
	before := members(confs)
	for _, more := range []int{1, 10} {
		ideal := replicas * float64(more) / float64(nodes+more)
		after := plan(confs, all[:nodes+more])
		add(fmt.Sprintf("moved_join%d", more), float64(moved(before, after))/ideal, "by ideal")
		add(fmt.Sprintf("moved_join%d_replicas", more), float64(moved(before, after)), "replicas")
	}
	old := ring.WeightedLists(all[:nodes], len(confs), rw.N, vnodes)
	add("ring_moved_join1", float64(moved(old, ring.WeightedLists(all[:nodes+1], len(confs), rw.N, vnodes)))/replicas*float64(nodes+1), "by ideal")
	preferred := ring.WeightedLists(all[:nodes+1], len(confs), rw.N, vnodes)
	add("plan_time", best(func() { placement.Plan(confs, preferred, all[:nodes+1], rw.N) })*1e3, "ms")
	if nodes > rw.N {
		dead := all[nodes/2].ID
		lost := 0
		for _, list := range before {
			if slices.Contains(list, dead) {
				lost++
			}
		}
		after := plan(confs, slices.Delete(slices.Clone(all[:nodes]), nodes/2, nodes/2+1))
		add("moved_death", float64(moved(before, after))/float64(lost), "by ideal")
		add("moved_death_replicas", float64(moved(before, after)), "replicas")
	}
	zoned := makeNodes(nodes+1, 3)
	inZones := configurations(plan(configurations(ring.WeightedLists(zoned[:nodes], len(confs), rw.N, vnodes)), zoned[:nodes]))
	preferred = ring.WeightedLists(zoned, len(confs), rw.N, vnodes)
	add("plan_time_zones", best(func() { placement.Plan(inZones, preferred, zoned, rw.N) })*1e3, "ms")
}

// studyTable measures the table and the coordinator's routes: memory, a look-up, a change.
func studyTable(add func(string, float64, string), confs []ring.Configuration) {
	partitions := len(confs)
	build := func() *placement.Table {
		read := make([]ring.Configuration, partitions)
		for p := range read { // each with memory of its own, as read from disk
			read[p], _ = placement.DecodeConfiguration(placement.AppendConfiguration(nil, confs[p]))
		}
		t, err := placement.New(ring.Founding{Quorum: rw, Partitions: partitions}, read, nil)
		if err != nil {
			panic(err)
		}
		return t
	}
	link := func(ring.NodeID) quorum.Replica { return nil }
	routes := func() *quorum.Routes { return quorum.NewRoutes(confs, rw, confs[0].Members[0], link) }
	add("table_memory", heap(build), "B")
	add("routes_memory", heap(routes), "B")
	add("routes_time", best(func() { routes() })*1e3, "ms")

	t, r := build(), routes()
	keys := make([][]byte, 1<<16)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "a key of thirty bytes %08x", i*2654435761)
	}
	found := 0
	took := best(func() {
		for range 16 {
			for _, key := range keys {
				found += len(t.Configuration(ring.PartitionOf(ring.Hash(key), partitions)).Members)
			}
		}
	})
	if found == 0 {
		panic("nothing found")
	}
	add("lookup", took/float64(16*len(keys))*1e9, "ns")

	const changes = 2000
	n := 0
	took = best(func() {
		for range changes {
			p := ring.Partition(n * 7919 % partitions)
			n++
			c := t.Configuration(p)
			c.Epoch++
			t.Adopt(p, c)
			r = r.With(p, c, link)
		}
	})
	add("adopt", took/changes*1e6, "µs")
	epoch := uint32(0)
	add("decision_key", best(func() {
		for range 20 {
			epoch++
			placement.DecisionKey(ring.Partition(int(epoch)*31%partitions), epoch, partitions)
		}
	})/20*1e6, "µs")
}

// studyExchange sizes what nodes tell each other about the table, as frames of links.
func studyExchange(add func(string, float64, string), confs []ring.Configuration) {
	partitions, known := len(confs), func(p ring.Partition) ring.Configuration { return confs[p] }
	whole := 0
	for _, c := range confs {
		whole += 6 + len(placement.AppendConfiguration(nil, c))
	}
	add("map_size", float64(whole), "B")
	frame := func(q message.Request) float64 { return float64(len(message.AppendRequest(nil, 1, &q))) }
	empty := float64(len(message.AppendReply(nil, 1, &message.Reply{Status: message.OK})))
	digests := placement.AppendDigests(nil, partitions, known)
	add("exchange_digests", frame(message.Request{Kind: message.Digests, Items: digests})+empty, "B")
	add("exchange_epochs", frame(message.Request{Kind: message.Configurations, Items: make([]byte, 4*partitions)})+empty, "B")
	add("digests_time", best(func() { placement.AppendDigests(nil, partitions, known) })*1e6, "µs")
	joint := confs[0]
	joint.Next = joint.Members
	add("tell", frame(message.Request{Kind: message.Configure, Configuration: joint})+empty, "B")
}
