package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// flushTimeout bounds flush_all: it deletes every key by a mutation of its own.
const flushTimeout = 5 * time.Minute

// flushAll deletes every record that any reachable node holds. Each deletion is linearizable; all of
// them together are not one instant. A delay is kept in this process only.
func (n *node) flushAll(delay time.Duration) error {
	if delay > 0 {
		time.AfterFunc(delay, func() {
			if err := n.flushAll(0); err != nil {
				n.log.Error("delayed flush_all", "error", err)
			}
		})
		return nil
	}
	d := n.data.Load()
	if d == nil {
		return errors.New("the cluster is not founded yet")
	}
	// A key that was ever acknowledged lies on W nodes, so that all nodes but N-W suffice.
	others := n.links.sorted()
	var all flushing
	all.Add(1 + len(others))
	go n.flushHere(all.call(n.identity.Node))
	for _, link := range others {
		r := n.links.replica(link.Node())
		r.Send(all.call(link.Node()))
		r.Flush()
	}
	all.Wait()
	if missing := int(all.missing.Load()); missing > d.founding.Quorum.N-d.founding.Quorum.W {
		return fmt.Errorf("flush_all incomplete: %d of %d nodes did not take part", missing, 1+len(others))
	}
	return nil
}

// flushing waits for the nodes that flush.
type flushing struct {
	sync.WaitGroup
	missing atomic.Int64
}

func (f *flushing) call(id ring.NodeID) *message.Call {
	return &message.Call{Completion: f, Request: message.Request{Kind: message.Flush, Key: []byte(id), Timeout: flushTimeout}}
}

// Done implements message.Completion.
func (f *flushing) Done(call *message.Call) {
	if call.Reply.Status != message.OK {
		f.missing.Add(1)
	}
	f.WaitGroup.Done()
}

// flushHere deletes what this node holds and answers call.
func (n *node) flushHere(call *message.Call) {
	ctx, cancel := context.WithTimeout(context.Background(), call.Timeout)
	defer cancel()
	call.Reply = message.Reply{Status: message.OK}
	if err := n.deleteAll(ctx, n.data.Load()); err != nil {
		n.log.Warn("flush_all", "error", err)
		call.Reply.Status = message.Busy
	}
	call.Completion.Done(call)
}

// flushBatch is how many keys are deleted side by side.
const flushBatch = 128

func (n *node) deleteAll(ctx context.Context, d *dataPath) error {
	s := d.coordinator.Session()
	defer s.Close()
	var ops []record.Op
	results := make([]record.Result, flushBatch)
	flush := func() error {
		s.Execute(ops, results[:len(ops)])
		for _, r := range results[:len(ops)] {
			if r.Status != record.Deleted && r.Status != record.NotFound {
				return fmt.Errorf("a deletion ended as %d: %s", r.Status, r.Detail)
			}
		}
		ops = ops[:0]
		return ctx.Err()
	}
	for p := range d.founding.Partitions {
		var keys [][]byte
		err := n.store.Scan(ring.Partition(p), nil, func(key, enc []byte) error {
			var rec record.Record
			if err := record.Decode(key, enc, &rec); err != nil || rec.Kind != record.Value || record.Internal(key) {
				return nil // what is corrupt here is deleted from another replica's copy
			}
			keys = append(keys, append([]byte(nil), key...))
			return nil
		})
		if err != nil {
			return err
		}
		for _, k := range keys {
			if ops = append(ops, record.Op{Kind: record.Delete, Key: k}); len(ops) == flushBatch {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	if len(ops) > 0 {
		return flush()
	}
	return nil
}
