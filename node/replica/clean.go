package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// A node that becomes a member of a partition begins with nothing: what it still has of an earlier
// membership may be older than what the members have forgotten since (purge), and would come back. So
// before it follows a configuration in which it is new, it clears the partition, once; a mark says
// that it did. A node that is no member any more clears it, too, for the space.

// cleans is what a replica knows of partitions that it has to clear.
type cleans struct {
	// done has, by partition, the epoch of the joint configuration for which this node, new in it, has cleared it.
	done []atomic.Uint32
	// empty has, by partition, the epoch of a configuration without this node by which it has cleared it.
	empty []atomic.Uint32
	// under way, by partition; guarded by confMu. What is in it is not served.
	running map[ring.Partition]struct{}
}

func newCleans(partitions int) cleans {
	return cleans{done: make([]atomic.Uint32, partitions), empty: make([]atomic.Uint32, partitions), running: map[ring.Partition]struct{}{}}
}

// CleanName is the Journal name of the mark that a partition was cleared.
func CleanName(p ring.Partition) string { return fmt.Sprintf("clean/%d", p) }

// newcomer reports whether this node is a member by c, and was none before.
func (r *Replica) newcomer(c ring.Configuration) bool {
	return slices.Contains(c.Next, r.opts.Self) && !slices.Contains(c.Members, r.opts.Self) && r.opts.Without&RuleClean == 0
}

// unclean reports whether this node follows c, but has not cleared p for it: it stopped in between. confMu
// is held.
func (r *Replica) unclean(p ring.Partition, c ring.Configuration) bool {
	return r.newcomer(c) && r.cleans.done[p].Load() != c.Epoch
}

// gate stops this node from serving p until ungate. When it returns, whatever was admitted before is staged.
// confMu is not held.
func (r *Replica) gate(p ring.Partition) {
	r.confMu.Lock()
	r.cleans.running[p] = struct{}{}
	r.parts[p].serves.Store(0)
	r.confMu.Unlock()
	r.sweep()
}

func (r *Replica) ungate(p ring.Partition) {
	r.confMu.Lock()
	delete(r.cleans.running, p)
	r.confMu.Unlock()
}

// clean clears p, which is gated, and whose older writes are durable, for the configuration c in which this
// node is new. The mark is staged before anything that c allows.
func (r *Replica) clean(p ring.Partition, c ring.Configuration) error {
	for {
		n, err := r.forget(p, clearAtOnce)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	r.sumsOfNothing(p)
	refused := make(chan error, 1) // if at once
	r.opts.Journal.PutMeta(CleanName(p), binary.BigEndian.AppendUint32(nil, c.Epoch), committed(func(err error) {
		select {
		case refused <- err:
		default:
		}
	}))
	select {
	case err := <-refused:
		if err != nil {
			return err
		}
	default:
	}
	r.cleans.done[p].Store(c.Epoch)
	return nil
}

// cleanLate is for a partition whose configuration was found at the start without the mark.
func (r *Replica) cleanLate(p ring.Partition, c ring.Configuration) {
	r.sweep()
	err := r.clean(p, c)
	if err != nil {
		r.opts.Logger.Warn("partition not cleared", "partition", p, "error", err)
	}
	r.ungate(p)
}

// clearAtOnce is how many records are forgotten at a time.
const clearAtOnce = 256

var errEnough = errors.New("enough")

// forget has up to limit records of p forgotten, whatever they are, and waits for that. Nothing may be served of p.
func (r *Replica) forget(p ring.Partition, limit int) (n int, err error) {
	scanner, ok := r.opts.Storage.(Scanner)
	_, can := r.opts.Storage.(Purger)
	if !ok || !can {
		return 0, nil
	}
	type row struct {
		key []byte
		b   record.Ballot
	}
	var rows []row
	err = scanner.Scan(p, nil, func(key, enc []byte) error {
		rows = append(rows, row{slices.Clone(key), record.PeekBallot(enc)})
		if len(rows) == limit {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return 0, err
	}
	w := &purging{}
	for _, row := range rows {
		one := &message.Call{Request: message.Request{Kind: message.Purge, Partition: p, Hash: ring.Hash(row.key), Key: row.key}, Completion: w}
		one.Reply.Status = message.OK
		w.wait.Add(1)
		st := r.stripe(one.Hash)
		st.mu.Lock()
		answered := r.stage(st, one, record.Ballot{}, row.b, true)
		st.mu.Unlock()
		if answered != nil {
			answered.finish()
		}
	}
	w.wait.Wait()
	return len(rows), w.err
}

// Drop forgets some records of p if this node is no member of it, and reports whether there may be more. It
// waits for the disk.
func (r *Replica) Drop(p ring.Partition) (more bool, err error) {
	r.confMu.Lock()
	c := r.opts.Configurations.Configuration(p)
	_, busy := r.adopting[p]
	// What a recovered partition left behind stays: somebody may want to look for what was lost.
	if busy || c.Has(r.opts.Self) || ring.Generation(c.Epoch) > 0 || r.cleans.empty[p].Load() == c.Epoch {
		r.confMu.Unlock()
		return false, nil
	}
	r.adopting[p] = struct{}{} // no other configuration meanwhile
	r.confMu.Unlock()
	n, err := r.forget(p, clearAtOnce)
	r.confMu.Lock()
	delete(r.adopting, p)
	if n == 0 && err == nil {
		r.cleans.empty[p].Store(c.Epoch)
	}
	r.confMu.Unlock()
	return n > 0, err
}

// sweep returns when whoever was admitted before has staged its write, or given up: accepts look at the
// epoch again under their stripe's lock.
func (r *Replica) sweep() {
	for i := range r.stripes {
		r.stripes[i].mu.Lock()
		//lint:ignore SA2001 whoever held it is what is waited for
		r.stripes[i].mu.Unlock()
	}
}
