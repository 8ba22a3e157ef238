package repair

import (
	"context"
	"fmt"
	"slices"
	"time"

	"kai/node/message"
	"kai/node/ring"
)

// purgeAtOnce bounds the records that one message is about.
const purgeAtOnce = 512

// purgeState says when a partition is to be looked through for dead records again.
type purgeState struct {
	mortals uint32 // Local.Mortals when it was last looked at
	due     time.Time
	never   bool // none of those that were there will be due
}

// purge has the partition's members forget records that have been dead for long: those that all members hold, in the same
// state, or do not hold. One member that was not asked could bring an older state back. Only a partition
// whose members are all there is purged; the first member does, and a later one what it is left with.
func (r *Repairer) purge(ctx context.Context, p ring.Partition, c ring.Configuration, diverged int) error {
	if r.o.PurgeAge == nil {
		return nil
	}
	age := r.o.PurgeAge()
	if age <= 0 {
		return nil
	}
	if diverged > 0 || c.Members[0] != r.o.Self {
		age *= 2
	}
	st := &r.purges[p]
	if m := r.o.Local.Mortals(p); m != st.mortals {
		if due := time.Now().Add(age); st.never || due.Before(st.due) {
			st.due = due
		}
		st.mortals, st.never = m, false
	}
	if st.never || time.Now().Before(st.due) {
		return nil
	}
	again := time.Duration(-1)
	soon := func(d time.Duration) {
		if again < 0 || d < again {
			again = d
		}
	}
	for after, more := []byte(nil), true; more && ctx.Err() == nil; {
		began := time.Now()
		dead, err := r.o.Local.Dead(p, after, age, purgeAtOnce)
		if err != nil {
			return fmt.Errorf("dead records: %w", err)
		}
		if len(dead.Items) > 0 {
			all, err := r.purgeItems(p, c, dead)
			if err != nil {
				st.due = began.Add(age)
				return err
			}
			if !all { // not at once: the members have to come together first
				soon(age)
			}
		}
		if dead.Due >= 0 {
			soon(dead.Due)
		}
		if after, more = dead.After, dead.More; more {
			r.rest(ctx, time.Since(began))
		}
	}
	// Not for each record that falls due: some together.
	st.due, st.never = time.Now().Add(max(again, age/4)), again < 0
	return nil
}

// rest comes between two pages of a purge. It is a third of that between partitions: where there is more than a page,
// clients delete faster than others purge, and what is not purged is read, kept and copied.
func (r *Repairer) rest(ctx context.Context, worked time.Duration) {
	began := time.Now()
	sleep(ctx, min(time.Duration(r.o.Rest+2)/3*worked, maxRest))
	r.rested += time.Since(began)
}

// purgeItems asks all members to confirm dead records, and then to forget those that all did; all: that was
// every one.
func (r *Repairer) purgeItems(p ring.Partition, c ring.Configuration, dead message.Dead) (all bool, err error) {
	items := dead.Items
	q := message.Request{Kind: message.Purge, Digest: true, Partition: p, Epoch: c.Epoch, Ballot: dead.Fence, Items: items}
	count := 0
	for rest := items; len(rest) > 0; count++ {
		_, _, next, ok := message.NextDead(rest)
		if !ok {
			return false, fmt.Errorf("dead records: damaged")
		}
		rest = next
	}
	votes := make([]int, count)
	need := len(c.Members)
	if r.o.Without&RulePurgeAll != 0 {
		need = need/2 + 1
	}
	for _, reply := range r.askAll(c.Members, q) {
		if reply.Status != message.OK || len(reply.Items) != count {
			if need == len(c.Members) {
				return false, fmt.Errorf("dead records: not confirmed: %s", reply.Status)
			}
			continue
		}
		for i, yes := range reply.Items {
			votes[i] += int(yes)
		}
	}
	var confirmed []byte
	n := 0
	for i, rest := 0, items; len(rest) > 0; i++ {
		key, b, next, _ := message.NextDead(rest)
		if rest = next; votes[i] >= need {
			confirmed = message.AppendDead(confirmed, key, b)
			n++
		}
	}
	if n == 0 {
		return false, nil
	}
	q.Digest, q.Items = false, confirmed
	all = n == count
	for i, reply := range r.askAll(c.Members, q) {
		if reply.Status != message.OK || slices.Contains(reply.Items, 0) {
			all = false
		}
		if c.Members[i] == r.o.Self && reply.Status == message.OK {
			r.counters.Purged.Add(uint64(n))
		}
	}
	return all, nil
}

// askAll asks nodes side by side, and waits for all of them.
func (r *Repairer) askAll(ids []ring.NodeID, q message.Request) []message.Reply {
	q.Timeout = r.o.Timeout
	waits := make([]answer, len(ids))
	for i, id := range ids {
		waits[i] = make(chan message.Reply, 1)
		peer := r.o.Peer(id)
		peer.Send(&message.Call{Request: q, Completion: waits[i]})
		peer.Flush()
	}
	replies := make([]message.Reply, len(ids))
	for i, w := range waits {
		replies[i] = <-w
	}
	return replies
}
