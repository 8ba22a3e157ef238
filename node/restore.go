package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"kai/node/console"
	"kai/node/flight"
	"kai/node/quorum"
	"kai/node/record"
)

const (
	// restoreBatch and restoreBytes bound what one request to restore has under way.
	restoreBatch = 512
	restoreBytes = 1 << 20
	// restoreTries is how often a record is tried that could not be decided; a wait of restoreWait, and then twice as long each time up to restoreRest, comes
	// between: some 30 s in all, since restores are work for a cluster that is hardly up.
	restoreTries = 12
	restoreWait  = 100 * time.Millisecond
	restoreRest  = 5 * time.Second
)

// MaxRecord implements console.Restorer.
func (s source) MaxRecord() int { return int(s.n.cfg.MaxValueBytes) + record.Overhead }

// Restore implements console.Restorer: each record enters by a round of its register, as a mutation that a newer state refuses.
func (s source) Restore(ctx context.Context, overwrite bool, next func() (key, enc []byte, err error)) (done console.Restoration, err error) {
	d := s.n.data.Load()
	if d == nil {
		return done, errNotFounded
	}
	ctx, finish := flight.Work(ctx, "restore", "", nil, attribute.Bool("kai.overwrite", overwrite), attribute.String("kai.node.id", string(s.n.identity.Node)))
	defer func() {
		finish(err, attribute.Int64("kai.records.restored", done.Restored), attribute.Int64("kai.records.newer", done.Newer))
	}()
	session := d.coordinator.Session()
	defer session.Close()
	for end := false; !end; {
		var ops []record.Op
		for size := 0; len(ops) < restoreBatch && size < restoreBytes; {
			key, enc, err := next()
			if errors.Is(err, io.EOF) {
				end = true
				break
			}
			if err != nil {
				return done, err
			}
			op, err := s.n.restoreOp(key, enc)
			if err != nil {
				return done, err
			}
			if overwrite {
				op.Delta = math.MaxUint64 // newer than all
			}
			ops, size = append(ops, op), size+len(enc)
		}
		if err := restoreOps(ctx, session, ops, &done); err != nil {
			return done, err
		}
	}
	return done, nil
}

// restoreOp is the operation that brings a record back. What has expired is brought back as deleted.
func (n *node) restoreOp(key, enc []byte) (op record.Op, err error) {
	var r record.Record
	if len(key) == 0 || record.Internal(key) {
		return op, fmt.Errorf("%q is no key of clients", key)
	}
	if err := record.Decode(key, enc, &r); err != nil {
		return op, fmt.Errorf("key %q: %w", key, err)
	}
	op = record.Op{Kind: record.Bury, Key: key, Delta: uint64(r.Version)}
	if r.Live(uint32(time.Now().Unix())) {
		if r.Expiry != 0 && !n.cfg.Expiration {
			return op, fmt.Errorf("record of key %q expires: set KAI_EXPIRATION=true on all nodes", key)
		}
		if len(r.Value) > int(n.cfg.MaxValueBytes) {
			return op, fmt.Errorf("record of key %q has %d bytes, more than KAI_MAX_VALUE_BYTES of this node", key, len(r.Value))
		}
		op.Kind, op.Value, op.Flags, op.Expiry = record.Restore, r.Value, r.Flags, r.Expiry
	}
	return op, nil
}

// restoreOps runs ops until each is decided.
func restoreOps(ctx context.Context, session *quorum.Session, ops []record.Op, done *console.Restoration) error {
	results := make([]record.Result, len(ops))
	wait := restoreWait
	for try := 1; len(ops) > 0; try++ {
		results = results[:len(ops)]
		session.Execute(ops, results)
		again := ops[:0]
		why := ""
		for i, r := range results {
			switch bury := ops[i].Kind == record.Bury; {
			case r.Status == record.Stored:
				done.Restored++
			case r.Status == record.NotStored && bury:
				done.Dead++
			case r.Status == record.NotStored:
				done.Newer++
			case r.Status == record.Unavailable || r.Status == record.Unknown: // to do it twice does no harm
				again, why = append(again, ops[i]), r.Detail
			default:
				return fmt.Errorf("key %q: %s", ops[i].Key, r.Detail)
			}
		}
		if ops = again; len(ops) > 0 && try == restoreTries {
			return fmt.Errorf("%d of the records are not decided after %d tries, %q the first: %s; the others are: restore again", len(ops), restoreTries, ops[0].Key, why)
		}
		if len(ops) > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
			}
			wait = min(2*wait, restoreRest)
		}
	}
	return nil
}
