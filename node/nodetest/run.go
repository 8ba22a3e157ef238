package nodetest

import (
	"fmt"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"kai/node/record"
	"kai/node/ring"
)

// Scenario is a cluster, what clients do to it and what goes wrong.
type Scenario struct {
	Name    string
	Config  Config
	Load    Load
	Trouble Trouble
}

// Outcome of one history.
type Outcome struct {
	History  []porcupine.Operation
	Unknown  int // operations of unknown outcome, reads that got no answer included
	Denied   int // mutations that were definitely not applied
	Messages int
	Counters map[string]uint64
}

// Run plays s with the given seed. Call it inside a synctest bubble.
func (s Scenario) Run(seed uint64) Outcome {
	cfg := s.Config
	cfg.Seed = seed
	c := NewCluster(cfg)
	if s.Trouble.Near {
		for k := range s.Load.Keys {
			c.hot = append(c.hot, ring.PartitionOf(ring.Hash(fmt.Appendf(nil, "key%d", k)), cfg.Partitions))
		}
	}
	h := &history{start: time.Now(), ops: c.begunWith()}
	stop := make(chan struct{})
	var clients, nemesis sync.WaitGroup
	nemesis.Go(func() { c.nemesis(s.Trouble, stop) })
	if cfg.Snapshots {
		nemesis.Go(func() { c.snapshots(stop) })
	}
	for i := range s.Load.Clients {
		clients.Go(func() {
			cl := &client{c: c, h: h, id: i, r: rng{seed: mix(seed, 77, uint64(i))}, load: s.Load, seen: map[string]record.Version{}}
			cl.run()
		})
	}
	clients.Wait()
	close(stop)
	nemesis.Wait()
	out := Outcome{History: h.sorted(), Unknown: h.unknown, Denied: h.denied, Messages: c.net.messages(), Counters: map[string]uint64{}}
	for _, n := range c.nodes {
		if n.current() == nil {
			c.crash(n.index) // it has never come so far
			continue
		}
		q := n.current().coordinator.Counters()
		out.Counters["sticky"] += q.StickyRounds.Load()
		out.Counters["wides"] += q.Wides.Load()
		out.Counters["wide_rounds"] += q.WideRounds.Load()
		out.Counters["seals"] += q.Seals.Load()
		out.Counters["write_backs"] += q.WriteBacks.Load()
		out.Counters["hedges"] += q.Hedges.Load()
		out.Counters["retries"] += q.Retries.Load()
		out.Counters["folded"] += q.Folded.Load()
		out.Counters["wrong_epochs"] += n.current().replica.Counters().WrongEpochs.Load()
		out.Counters["purged"] += n.current().repairer.Counters().Purged.Load()
		out.Counters["loaded"] += n.current().mover.Counters().LoadedRecords.Load()
		hints := n.current().hints.Counters()
		out.Counters["hints"] += hints.Added.Load()
		out.Counters["hints_dropped"] += hints.Dropped.Load()
		out.Counters["handed_off"] += hints.HandedOff.Load()
		for p := range c.Partitions {
			out.Counters["epochs"] = max(out.Counters["epochs"], uint64(n.current().table.Configuration(ring.Partition(p)).Epoch))
		}
		c.crash(n.index)
	}
	out.Counters["snapshots"] = uint64(len(c.bucket.complete))
	c.net.checkUsedUp()
	return out
}
