package node

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"kai/node/console"
	"kai/node/message"
	"kai/node/placement"
	"kai/node/ring"
)

const (
	// meterEvery is the time between two samples of the transfer counters, meterSamples how many are kept:
	// rates are over the last ten seconds.
	meterEvery   = time.Second
	meterSamples = 11
	// diskEvery is how often the size of the data directory is looked at.
	diskEvery = 10 * time.Second
	// reportTimeout bounds how long other nodes are waited for when somebody asks how transfers go.
	reportTimeout = 400 * time.Millisecond
)

// report is what one node tells of its transfers: counts since its start, and rates of late.
type report struct {
	records, bytes, pulled uint64
	bytesRate              uint64 // a second
	pulledRate             uint64 // thousandths of a partition a second
	disk                   uint64 // bytes of its data directory
	held                   uint64 // partitions
}

func (r *report) fields() []*uint64 {
	return []*uint64{&r.records, &r.bytes, &r.pulled, &r.bytesRate, &r.pulledRate, &r.disk, &r.held}
}

// add sums up.
func (r *report) add(o report) {
	others := o.fields()
	for i, f := range r.fields() {
		*f += *others[i]
	}
}

// appendReport encodes: 8 bytes each, little-endian. Later builds may append.
func appendReport(b []byte, r report) []byte {
	for _, f := range r.fields() {
		b = binary.LittleEndian.AppendUint64(b, *f)
	}
	return b
}

func parseReport(b []byte) (r report, ok bool) {
	for _, f := range r.fields() {
		if len(b) < 8 {
			return report{}, false
		}
		*f, b = binary.LittleEndian.Uint64(b), b[8:]
	}
	return r, true
}

// meter samples the counters of this node's transfers, to tell rates. Safe for concurrent use.
type meter struct {
	mu      sync.Mutex
	samples []sample
	disk    uint64
}

type sample struct {
	at            time.Time
	bytes, pulled uint64
}

func (m *meter) take(now time.Time, c *placement.Counters) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.samples) == meterSamples {
		m.samples = append(m.samples[:0], m.samples[1:]...)
	}
	m.samples = append(m.samples, sample{now, c.Bytes.Load() + c.LoadedBytes.Load(), c.Pulled.Load()})
}

// rates are those between the oldest sample and the newest, a second; the time before anything came does not count.
func (m *meter) rates() (bytes, pulled float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.samples
	for len(s) > 2 && s[0].bytes == s[1].bytes && s[0].pulled == s[1].pulled {
		s = s[1:]
	}
	if len(s) < 2 {
		return 0, 0
	}
	a, b := s[0], s[len(s)-1]
	seconds := b.at.Sub(a.at).Seconds()
	return float64(b.bytes-a.bytes) / seconds, float64(b.pulled-a.pulled) / seconds
}

// runMeter samples until ctx ends.
func (n *node) runMeter(ctx context.Context, d *dataPath, c *placement.Counters) {
	tick := time.NewTicker(meterEvery)
	defer tick.Stop()
	var looked time.Time
	for {
		now := time.Now()
		d.meter.take(now, c)
		if now.Sub(looked) >= diskEvery {
			looked = now
			disk := uint64(n.diskBytes())
			d.meter.mu.Lock()
			d.meter.disk = disk
			d.meter.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ownReport tells how this node's transfers go.
func (n *node) ownReport(d *dataPath) (r report) {
	bytes, pulled := d.meter.rates()
	r.bytesRate, r.pulledRate = uint64(bytes), uint64(1000*pulled)
	d.meter.mu.Lock()
	r.disk = d.meter.disk
	d.meter.mu.Unlock()
	r.held = uint64(n.holds(d))
	if m := d.mover.Load(); m != nil {
		c := m.Counters()
		r.records, r.bytes, r.pulled = c.Records.Load()+c.LoadedRecords.Load(), c.Bytes.Load()+c.LoadedBytes.Load(), c.Pulled.Load()
	}
	return r
}

// answerReport answers a peer's Report.
func (n *node) answerReport(d *dataPath, call *message.Call) {
	call.Reply = message.Reply{Status: message.OK, Items: appendReport(nil, n.ownReport(d))}
	call.Completion.Done(call)
}

// reports sums up what all live nodes tell, and counts those that were silent. It waits for reportTimeout at most.
func (n *node) reports(d *dataPath) (sum report, silent int) {
	sum = n.ownReport(d)
	answers := make(chan *report, len(n.membership.View().Nodes))
	asked := 0
	for _, info := range n.membership.View().Nodes {
		if info.ID == n.identity.Node || !info.Alive {
			continue
		}
		asked++
		call := &message.Call{Completion: reported(func(r *report) { answers <- r })}
		call.Request = message.Request{Kind: message.Report, Timeout: reportTimeout}
		link := n.links.replica(info.ID)
		link.Send(call)
		link.Flush()
	}
	late := time.NewTimer(2 * reportTimeout) // links keep to their timeout; this is for one that does not
	defer late.Stop()
	for range asked {
		select {
		case r := <-answers:
			if r == nil {
				silent++
				continue
			}
			sum.add(*r)
		case <-late.C:
			return sum, asked
		}
	}
	return sum, silent
}

// reported takes the answer to a Report; nil if there is none.
type reported func(*report)

// Done implements message.Completion.
func (f reported) Done(call *message.Call) {
	if r, ok := parseReport(call.Reply.Items); ok && call.Reply.Status == message.OK {
		f(&r)
		return
	}
	f(nil)
}

// transfer tells how the moves go. It asks the other nodes if anything moves.
func (n *node) transfer(d *dataPath, o *outlook) console.Transfer {
	t := console.Transfer{Moving: o.moving, Planned: o.planned, LeftReplicas: o.left, AtOnce: n.cfg.Moves}
	r := n.ownReport(d)
	if o.moving+o.planned > 0 {
		r, t.Silent = n.reports(d)
	}
	t.Records, t.Bytes, t.Partitions = r.records, r.bytes, r.pulled
	t.BytesPerSecond, t.ReplicasPerSecond = float64(r.bytesRate), float64(r.pulledRate)/1000
	t.LeftBytes = int64(float64(o.left) * replicaBytes(r, d.founding.Quorum))
	t.SecondsLeft = secondsLeft(t)
	return t
}

// replicaBytes is about what the transfer of one partition to one node carries: the mean of those there were, or
// what the nodes have on disk for one, from each node of a read quorum.
func replicaBytes(r report, q ring.Quorum) float64 {
	switch {
	case r.pulled >= 8 && r.bytes > 0:
		return float64(r.bytes) / float64(r.pulled)
	case r.held > 0:
		return float64(r.disk) / float64(r.held) * float64(q.R)
	}
	return 0
}

// secondsLeft goes by partitions if some have arrived of late, else by bytes; -1: who knows.
func secondsLeft(t console.Transfer) float64 {
	switch {
	case t.LeftReplicas == 0:
		return 0
	case t.ReplicasPerSecond > 0:
		return float64(t.LeftReplicas) / t.ReplicasPerSecond
	case t.BytesPerSecond > 0 && t.LeftBytes > 0:
		return float64(t.LeftBytes) / t.BytesPerSecond
	}
	return -1
}
