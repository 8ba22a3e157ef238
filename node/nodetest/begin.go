package nodetest

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// begunName is the mark of a node that holds what its cluster began with.
const begunName = "begun"

// begin loads what the cluster begins with, as node/beginning.go does, and then has others see the node.
func (c *Cluster) begin(inc *incarnation) {
	r := rng{seed: mix(c.seed, 1919, uint64(inc.index), uint64(inc.boots))}
	for k := 0; k < c.Begins; {
		time.Sleep(r.between(time.Millisecond, 30*time.Millisecond))
		key := fmt.Appendf(nil, "key%d", k)
		hash := ring.Hash(key)
		p := ring.PartitionOf(hash, c.Partitions)
		now := inc.table.Configuration(p)
		if !c.first[p].Has(inc.id) || !now.Has(inc.id) {
			k++
			continue
		}
		stamp := record.NewStamp(record.Ticks(time.Unix(1750000000, 0))+uint64(k), 7)
		rec := record.Record{Kind: record.Value, Value: []byte("begins"), Version: record.Version(stamp), CAS: record.Version(stamp), Ballot: record.Ballot{Epoch: c.first[p].Epoch, Stamp: stamp}}
		done := make(chan message.Status, 1)
		call := &message.Call{Completion: completion(func(call *message.Call) { done <- call.Reply.Status })}
		call.Request = message.Request{Kind: message.Accept, Partition: p, Epoch: now.Epoch, Hash: hash, Key: key, Record: record.Append(nil, key, &rec)}
		inc.replica.Learn(call)
		select {
		case s := <-done:
			if s == message.OK { // else the disk was busy, or a fence was not there yet
				k++
			}
		case <-inc.died:
			return
		}
	}
	marked := make(chan error, 1)
	inc.volume.PutMeta(begunName, []byte{1}, durable(func(err error) { marked <- err }))
	select {
	case err := <-marked:
		if err == nil && inc.alive() && c.Mutant&BeginsEarly == 0 {
			c.open(inc)
		}
		inc.loading.CompareAndSwap(inc, nil)
	case <-inc.died:
	}
}

type durable func(error)

// Committed implements the journal's callback.
func (f durable) Committed(err error) { f(err) }

// begunWith are the operations that wrote what the cluster begins with, before all others.
func (c *Cluster) begunWith() (ops []porcupine.Operation) {
	for k := range c.Begins {
		ops = append(ops, porcupine.Operation{ClientId: 900 + k, Input: input{kind: record.Set, key: fmt.Sprintf("key%d", k), arg: "begins"}, Output: output{status: record.Stored}, Call: -2, Return: -1})
	}
	return ops
}
