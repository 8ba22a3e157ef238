// Package flight keeps what became of single requests: which replica said what, and when. Each request fills a record on its
// way, which costs it a few stores; at its end it is thrown away, but for those that were slow, failed, or found replicas that differ.
package flight

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/clock"
	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// Class says why a flight is kept: a set.
type Class uint8

const (
	// Slow took Options.Slow or longer.
	Slow Class = 1 << iota
	// Failed was unavailable, of unknown outcome, or corrupt.
	Failed
	// Diverged found that replicas differ.
	Diverged
	// Sampled was chosen by chance; see Options.Ratio.
	Sampled
	// Hinted was written while a replica was known not to take it, so that it will be told later.
	Hinted
	classes = iota
)

var classNames = [classes]string{"slow", "failed", "diverged", "sampled", "hinted"}

// ClassOf is the class of that name.
func ClassOf(name string) (Class, bool) {
	for i, n := range classNames {
		if n == name {
			return 1 << i, true
		}
	}
	return 0, false
}

// Names of the classes in c.
func (c Class) Names() (names []string) {
	for i, n := range classNames {
		if c&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

// Context is what connects the parts of a request on several nodes, in the 25 bytes that a message has for it: 16 of the trace, 8 of the span that asks, and flags.
type Context [message.TraceLen]byte

// NewContext is one of a new trace; not for secrets.
func NewContext() (c Context) {
	for at := 0; at < 24; at += 8 {
		binary.LittleEndian.PutUint64(c[at:], rand.Uint64()|1) //nolint:gosec // names, not secrets; none of its parts is zero
	}
	return c
}

// Sampled reports whether all nodes are to keep their part.
func (c *Context) Sampled() bool { return message.Sampled((*[message.TraceLen]byte)(c)) }

// Sample says that all nodes are to keep their part.
func (c *Context) Sample() { c[24] |= 1 }

// Span is a name for a span; never 0, which is none. Not for secrets.
func Span() uint64 { return rand.Uint64() | 1 } //nolint:gosec // names, not secrets

// From is c as the span of that name tells it to other nodes.
func (c Context) From(span uint64) Context {
	binary.LittleEndian.PutUint64(c[16:], span)
	return c
}

// Trace is the trace's id in hexadecimal.
func (c Context) Trace() string { return hex.EncodeToString(c[:16]) }

// Answer is what a replica said to one message.
type Answer struct {
	At     time.Duration // since the request began; 0: it has not answered
	Ballot record.Ballot
	Timing message.Timing // by its own account; of a message about several keys, of all of them
	Status message.Status
	Digest bool // it was asked for the ballot alone
}

// Step is one message to one replica.
type Step struct {
	Node ring.NodeID
	Kind message.Kind
	Sent time.Duration // since the request began
	Span uint64        // the span that the replica was told to be part of; 0: none
	Answer
}

// Part is what a node did for one message of a request that was sampled elsewhere. Its Context is that of the message.
type Part struct {
	Context
	Kind      message.Kind
	Partition ring.Partition
	Began     time.Time
	Took      time.Duration // until the reply was ready to be sent
	Timing    message.Timing
	Status    message.Status
}

// Flight is one request that was kept. It is not changed any more.
type Flight struct {
	Context
	Began     time.Time
	Took      time.Duration
	Op        record.OpKind
	Partition ring.Partition
	Key       uint64 // a hash, salted anew at each start: who has the key can tell, who has the hash cannot
	Status    record.Status
	Detail    string
	Class     Class
	// Batch is how many operations were read together: all are answered when the last is decided. 0: it was run for another node.
	Batch int
	// Forwarded: this node ran it for another one, whose flight has the same trace.
	Forwarded bool
	Steps     []Step
}

// Options of New.
type Options struct {
	// Slow is how long a request takes at least to be kept for that.
	Slow time.Duration
	// Ratio of all requests is kept by chance: from 0 for none to 1 for all.
	Ratio float64
	// Export, if not nil, hears of each flight that is kept, once, on the request's own goroutine: it must not block.
	Export func(*Flight)
	// ExportPart is Export for parts of requests that other nodes sampled.
	ExportPart func(Part)
	// Keep is how many of each class are remembered (256), Rate how many of each may come in a second (100).
	Keep, Rate int
}

// partRate is how many parts may come in a second: a sampled mutation has two at each replica.
const partRate = 1000

// Recorder remembers flights. Its methods are safe for concurrent use; on a nil Recorder nothing is kept.
type Recorder struct {
	o       Options
	born    time.Time     // when it was made,
	bornAt  time.Duration // and that by clock.Now
	salt    uint64
	kept    [classes]atomic.Uint64
	dropped [classes]atomic.Uint64
	limits  [classes]limiter
	parts   limiter

	mu    sync.Mutex
	rings [classes][]*Flight // the oldest is overwritten
}

// limiter lets so many through in each second, roughly: who comes as one ends may be counted in either.
type limiter struct {
	second atomic.Int64
	count  atomic.Int64
}

func (l *limiter) allow(now time.Duration, rate int) bool {
	if s := int64(now / time.Second); l.second.Load() != s && l.second.Swap(s) != s {
		l.count.Store(0)
	}
	return l.count.Load() < int64(rate) && l.count.Add(1) <= int64(rate)
}

// New makes a recorder.
func New(o Options) *Recorder {
	if o.Keep == 0 {
		o.Keep = 256
	}
	if o.Rate == 0 {
		o.Rate = 100
	}
	return &Recorder{o: o, born: time.Now(), bornAt: clock.Now(), salt: rand.Uint64()} //nolint:gosec // it hides keys from who reads along, in this process' life
}

// Classify tells why a request that took that long is to be kept; 0: it is not, perhaps because there were too many of its classes
// in this second, which is counted. besides is what is known beside its duration and status: Diverged, Sampled, Hinted. It is to be asked once for
// each request.
func (r *Recorder) Classify(took time.Duration, s record.Status, besides Class) (c Class) {
	if r == nil {
		return 0
	}
	c = besides
	if took >= r.o.Slow {
		c |= Slow
	}
	switch s {
	case record.Unavailable, record.Unknown, record.Corrupt:
		c |= Failed
	}
	if c &^= Sampled; c != 0 {
		now := clock.Now() - r.bornAt
		for i := range classes {
			if c&(1<<i) != 0 && !r.limits[i].allow(now, r.o.Rate) {
				r.dropped[i].Add(1)
				c &^= 1 << i
			}
		}
	}
	return c | besides&Sampled // of those Sample has let through as many as there may be
}

// Sample tells whether a request that began then is to be kept by chance, on all nodes that have a part in it: so it is to be asked
// first, once for each.
func (r *Recorder) Sample(began time.Duration) bool {
	if r == nil || r.o.Ratio <= 0 || r.o.Ratio < 1 && rand.Float64() >= r.o.Ratio { //nolint:gosec // guards nothing
		return false
	}
	i := bits.TrailingZeros8(uint8(Sampled))
	if !r.limits[i].allow(began-r.bornAt, r.o.Rate) {
		r.dropped[i].Add(1)
		return false
	}
	return true
}

// AddPart exports a part of a request that another node sampled, unless there are too many.
func (r *Recorder) AddPart(p Part) {
	if r != nil && r.o.ExportPart != nil && r.parts.allow(clock.Now()-r.bornAt, partRate) {
		r.o.ExportPart(p)
	}
}

// Add remembers f, of the classes that Classify told. began is what clock.Now was then. f is the recorder's from then on.
func (r *Recorder) Add(f *Flight, began time.Duration, hash uint64) {
	f.Began = r.born.Add(began - r.bornAt)
	f.Key = ring.Hash(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, r.salt), hash))
	r.remember(f)
	if r.o.Export != nil {
		r.o.Export(f)
	}
}

func (r *Recorder) remember(f *Flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range classes {
		if f.Class&(1<<i) == 0 {
			continue
		}
		n := r.kept[i].Add(1) - 1
		if len(r.rings[i]) < r.o.Keep {
			r.rings[i] = append(r.rings[i], f)
		} else {
			r.rings[i][n%uint64(r.o.Keep)] = f
		}
	}
}

// Recent returns at most limit flights of a class, the newest first.
func (r *Recorder) Recent(c Class, limit int) (recent []*Flight) {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range classes {
		if c != 1<<i {
			continue
		}
		n := int(r.kept[i].Load())
		for k := range min(limit, len(r.rings[i])) {
			recent = append(recent, r.rings[i][(n-1-k)%r.o.Keep])
		}
	}
	return recent
}

// Each calls fn with the flights that are remembered, in no order, those of several classes more than once.
func (r *Recorder) Each(fn func(*Flight)) {
	if r == nil {
		return
	}
	r.mu.Lock()
	var all []*Flight
	for i := range classes {
		all = append(all, r.rings[i]...)
	}
	r.mu.Unlock()
	for _, f := range all {
		fn(f)
	}
}

// Counts emits, by class, how many were kept since the start, and how many were not because there were too many.
func (r *Recorder) Counts(emit func(class string, kept, dropped uint64)) {
	if r == nil {
		return
	}
	for i, name := range classNames {
		emit(name, r.kept[i].Load(), r.dropped[i].Load())
	}
}
