package membership

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// joinsAtOnce bounds the addresses that are joined together.
	joinsAtOnce = 8
	// patience is how many rounds seeds get to answer before a node goes on without them: the
	// nodes of a cluster that starts are not all up at once.
	patience = 3
	// maxBackoff bounds the factor by which failing look-ups slow the loop down.
	maxBackoff = 8
	// hopeful is how many look-ups may fail before the next ones are put off.
	hopeful = 5
)

// discover looks for peers until ctx ends. Every address found that is not a live peer's is
// joined: that is what heals a partition, because gossip forgets the dead after 30 s.
func (m *Membership) discover(ctx context.Context) {
	var last []string // the last good answer, and what has been found since it
	met, round, backoff := false, 0, 1
	for {
		found, err := m.find(ctx)
		if err != nil {
			m.stats.findFailures.Add(1)
			if backoff = min(2*backoff, maxBackoff); len(found) > 0 || round < hopeful {
				backoff = 1 // at first names of nodes that start as well are not known yet
			}
			m.log.Warn("look-up of peers failed; trying again", "error", err, "known", len(last))
		} else {
			backoff = 1
		}
		if err != nil { // what was found counts, and what was not may be there all the same
			found = append(found, last...)
		}
		slices.Sort(found)
		last = slices.Compact(found)
		answered := m.joinAll(ctx, last)
		if ctx.Err() != nil {
			return
		}
		round++
		if err == nil && answered || round >= patience && len(last) > 0 {
			if !m.search.Swap(true) {
				signal(m.nudge)
			}
		}
		met = met || len(m.members.peers(m.options.Self.ID, m.clusterID())) > 0
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-time.After(m.pause(met && m.search.Load(), round) * time.Duration(backoff)):
		}
	}
}

// pause is how long to wait for the next round: short, ±50 %, until the first peer is met and all
// seeds have been asked, but for a minute at most once there is a cluster (that has one node,
// perhaps); then long, ±20 %.
func (m *Membership) pause(settled bool, round int) time.Duration {
	t := m.options.Timing
	if young := m.founding.Load() == nil || time.Duration(round)*t.Join < time.Minute; !settled && young {
		return t.Join/2 + rand.N(t.Join) //nolint:gosec // spreads load, guards nothing
	}
	return t.Rejoin - t.Rejoin/5 + rand.N(2*t.Rejoin/5) //nolint:gosec // as above
}

// find asks for peers, in bounded time.
func (m *Membership) find(ctx context.Context) ([]string, error) {
	if m.options.Find == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.options.Timing.Find)
	defer cancel()
	found, err := m.options.Find(ctx)
	return slices.Clone(found), err
}

// joinAll joins what is not joined yet, and reports whether all addresses answered.
func (m *Membership) joinAll(ctx context.Context, addrs []string) bool {
	var failures atomic.Uint64
	var joins sync.WaitGroup
	slots := make(chan struct{}, joinsAtOnce)
	for _, addr := range m.members.wanted(addrs) {
		if _, err := netip.ParseAddrPort(addr); err != nil { // memberlist would look it up without bound
			m.log.Warn("peer address is not ip:port", "addr", addr)
			failures.Add(1)
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		joins.Go(func() {
			defer func() { <-slots }()
			if _, err := m.list.Join([]string{addr}); err != nil {
				m.log.Debug("peer did not answer", "addr", addr, "error", err)
				failures.Add(1)
			}
		})
	}
	joins.Wait()
	m.stats.joinFailures.Add(failures.Load())
	return failures.Load() == 0
}

// signal leaves word in a channel that has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
