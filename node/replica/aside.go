package replica

import (
	"sync"

	"kai/node/message"
)

// maxDisk bounds the goroutines that read the disk for calls; more calls wait in a queue, which the
// callers bound.
const maxDisk = 64

// diskQueue is the calls whose keys are not in memory.
type diskQueue struct {
	mu      sync.Mutex
	workers int
	queue   []*message.Call
}

// aside has call answered by a goroutine that may wait for the disk: who brings calls brings those of
// many clients, and must go on.
func (r *Replica) aside(call *message.Call) {
	call = call.Keep()
	d := &r.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.workers == maxDisk {
		d.queue = append(d.queue, call)
		return
	}
	d.workers++
	go r.readDisk(call)
}

func (r *Replica) readDisk(call *message.Call) {
	for call != nil {
		if call.Kind == message.Prepare || call.Kind == message.Accept {
			// Into memory first, so that the stripe's lock is not held while the disk works. Whatever
			// goes wrong here does so again where it is answered.
			_, _, _ = r.opts.Storage.Get(nil, call.Partition, call.Hash, call.Key)
		}
		r.send(call, true)
		call = r.disk.next()
	}
}

// next returns the next call, or nil: then its caller ends.
func (d *diskQueue) next() *message.Call {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		d.queue = nil
		d.workers--
		return nil
	}
	call := d.queue[0]
	d.queue[0] = nil
	d.queue = d.queue[1:]
	return call
}
