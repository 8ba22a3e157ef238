package placement

import (
	"context"
	"errors"
	"slices"

	"go.opentelemetry.io/otel/attribute"

	"kai/node/flight"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// preload has this node, which is new in the joint configuration c, learn what a snapshot holds of p, so that only what has changed since must
// come from the old members. It reports whether something is there now, for pulls to begin from. What cannot be loaded is pulled.
//
// A snapshot's records are states that a member had accepted, as those of a transfer are: what makes it safe to learn those makes it
// safe to learn these. But a snapshot may be of a time before a record died, and the members may have forgotten it since. They do so only once it
// is dead in a complete snapshot, all of them confirm it, and at a stable configuration; so once one of them has followed to c, whatever they have forgotten or
// will forget before c ends is dead, or missing, in the newest complete snapshot. RULE: it is chosen only then.
//
// Nor may it bring back what a recovery gave up: reads of the new generation may have found it missing. RULE: records of an earlier generation are left out.
func (m *Mover) preload(ctx context.Context, p ring.Partition, c ring.Configuration) bool {
	if m.o.Preload == nil || slices.Contains(c.Members, m.o.Self) {
		return false
	}
	m.mu.Lock()
	tried := m.loaded[p] == c.Epoch
	m.loaded[p] = c.Epoch
	m.mu.Unlock()
	if tried {
		return true // pulls compare, whatever came of it
	}
	if m.has(RuleLookLate) && !m.followed(ctx, p, c) {
		return false
	}
	page := message.BeginPage(nil)
	some := false
	flush := func() error {
		rows, _, _ := message.OpenPage(page)
		if len(rows) == 0 {
			return nil
		}
		if m.o.Configuration(p).Epoch != c.Epoch {
			return errMovedOn
		}
		m.o.Pacer.Spend(ctx, len(rows))
		_, records, err := m.store(message.Accept, p, c.Epoch, rows)
		some = some || records > 0
		m.counters.LoadedRecords.Add(uint64(records))
		m.counters.LoadedBytes.Add(uint64(len(rows)))
		page = message.BeginPage(page[:0])
		return err
	}
	inner, end := flight.Work(ctx, "pull.snapshot", "", nil, attribute.Int("kai.partition", int(p)))
	err := m.o.Preload(inner, p, func(key, enc []byte) error {
		epoch := record.PeekBallot(enc).Epoch
		if epoch > c.Epoch || Generation(epoch) != Generation(c.Epoch) && m.has(RuleGeneration) {
			return nil
		}
		var ok bool
		if page, ok = message.AppendRow(page, key, enc); ok {
			return nil
		}
		if err := flush(); err != nil {
			return err
		}
		page, _ = message.AppendRow(page, key, enc)
		return nil
	})
	if err == nil {
		err = flush()
	}
	end(err)
	if err != nil && ctx.Err() == nil {
		m.o.Logger.DebugContext(ctx, "partition not loaded from a snapshot as a whole; the rest is pulled", "partition", p, "error", err)
	}
	return some
}

var errMovedOn = errors.New("the partition has moved on")

// followed reports whether an old member of c follows it, after telling it.
func (m *Mover) followed(ctx context.Context, p ring.Partition, c ring.Configuration) bool {
	for _, id := range m.sources(c.Members) {
		if _, _, err := m.sums(ctx, p, c, id); err == nil {
			return true
		}
	}
	return false
}
