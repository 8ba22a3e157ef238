package nodetest

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"kai/node/quorum"
	"kai/node/record"
)

// Load says what clients do.
type Load struct {
	Clients, Ops int
	Keys         int
	Batch        bool          // several operations in one Execute now and then
	Conditional  bool          // mostly operations whose answer depends on whether the key exists
	Restoring    bool          // records of snapshots are brought back, too: older than all, newer than all, or what was read before
	Blindly      bool          // a mutant: records are restored whatever is there
	Expiring     bool          // some of what is stored has expired at once
	Gap          time.Duration // longest rest between two batches; 0: 12 ms
}

// history gathers what the clients saw.
type history struct {
	mu      sync.Mutex
	start   time.Time
	ops     []porcupine.Operation
	unknown int
	denied  int // definitely not applied
}

// client runs one client against nodes at random, as through a load balancer: a connection stays
// with its node until that dies.
type client struct {
	c     *Cluster
	h     *history
	id    int
	r     rng
	load  Load
	inc   *incarnation
	sess  *quorum.Session
	seen  map[string]record.Version // tokens by key
	count int
}

func (cl *client) run() {
	time.Sleep(time.Duration(cl.id)*137*time.Microsecond + 1)
	for cl.count < cl.load.Ops {
		time.Sleep(cl.r.between(0, cmp.Or(cl.load.Gap, 12*time.Millisecond)))
		if !cl.connect() {
			continue
		}
		n := 1
		if cl.load.Batch && cl.r.chance(30) {
			n = 2 + cl.r.intn(3)
		}
		cl.execute(n)
	}
}

func (cl *client) connect() bool {
	if cl.sess != nil && cl.inc.alive() && !cl.r.chance(15) {
		return true
	}
	inc := cl.c.nodes[cl.r.intn(len(cl.c.nodes))].current()
	if inc == nil || !inc.alive() {
		return false
	}
	cl.inc, cl.sess = inc, inc.coordinator.Session()
	return true
}

func (cl *client) execute(n int) {
	ins := make([]input, n)
	ops := make([]record.Op, n)
	for i := range n {
		ins[i] = cl.choose()
		ops[i] = record.Op{Kind: ins[i].kind, Key: []byte(ins[i].key), Value: []byte(ins[i].arg), CAS: ins[i].token, Delta: ins[i].delta}
		if cl.load.Blindly && (ins[i].kind == record.Restore || ins[i].kind == record.Bury) {
			ops[i].Delta = newest
		}
		if ins[i].expired {
			ops[i].Expiry = 1 // second of 1970
		}
	}
	results := make([]record.Result, n)
	call := time.Since(cl.h.start)
	done := make(chan struct{})
	go func(s *quorum.Session, results []record.Result) {
		s.Execute(ops, results)
		close(done)
	}(cl.sess, results)
	lost := false
	select {
	case <-done:
	case <-cl.inc.died: // an answer of a process that died on the way never reaches the client
		lost = true
		results = make([]record.Result, n)
	}
	ret := time.Since(cl.h.start)
	cl.h.mu.Lock()
	defer cl.h.mu.Unlock()
	for i, res := range results {
		out := output{status: res.Status, value: string(res.Value), token: res.CAS, number: res.Number}
		out.unknown = lost || res.Status == record.Unknown
		denied := res.Status == record.Unavailable || res.Status == record.Corrupt
		switch {
		case ins[i].kind == record.Get && (out.unknown || denied):
			cl.h.unknown++
			continue
		case denied && !lost:
			cl.h.denied++
			continue
		}
		op := porcupine.Operation{ClientId: cl.id, Input: ins[i], Output: out, Call: int64(call), Return: int64(ret)}
		if out.unknown {
			cl.h.unknown++
			op.Return = math.MaxInt64
			op.ClientId = 1000 + len(cl.h.ops) // the client goes on, the operation may too
		}
		if res.Status == record.Found && !lost {
			cl.seen[ins[i].key] = res.CAS
		}
		cl.h.ops = append(cl.h.ops, op)
	}
}

// choose makes the next operation: text keys and counter keys, every value unique.
func (cl *client) choose() input {
	cl.count++
	k := cl.r.intn(cl.load.Keys)
	in := input{key: fmt.Sprintf("key%d", k), arg: fmt.Sprintf("%d.%d,", cl.id, cl.count)}
	pick := func(kinds ...record.OpKind) record.OpKind { return kinds[cl.r.intn(len(kinds))] }
	if k%3 == 2 { // a counter
		in.delta = uint64(1 + cl.r.intn(9))
		in.arg = strconv.Itoa(cl.id*1_000_000 + cl.count*1000)
		in.kind = pick(record.Get, record.Get, record.Incr, record.Incr, record.Incr, record.Decr, record.Add, record.Set)
		return in
	}
	in.kind = pick(record.Get, record.Get, record.Get, record.Get, record.Set, record.Set, record.Set, record.AppendTo,
		record.AppendTo, record.Prepend, record.Add, record.Replace, record.Delete, record.CompareAndSwap, record.CompareAndSwap)
	if cl.load.Conditional {
		in.kind = pick(record.Get, record.Get, record.Add, record.Add, record.Delete, record.Delete, record.Replace, record.AppendTo)
	}
	if cl.load.Restoring && cl.r.chance(30) {
		in.kind = pick(record.Restore, record.Restore, record.Bury)
		in.delta = uint64(cl.seen[in.key])
		switch cl.r.intn(3) {
		case 0:
			in.delta = oldest
		case 1:
			in.delta = newest
		}
		if in.delta == 0 {
			in.delta = oldest
		}
	}
	switch in.kind {
	case record.Set, record.Add, record.Replace, record.CompareAndSwap:
		in.expired = cl.load.Expiring && cl.r.chance(30)
	}
	if in.kind == record.CompareAndSwap {
		if in.token = cl.seen[in.key]; in.token == 0 {
			in.kind, in.expired = record.Get, false
		}
	}
	return in
}

// sorted returns the history in the order of calls.
func (h *history) sorted() []porcupine.Operation {
	slices.SortFunc(h.ops, func(a, b porcupine.Operation) int {
		if a.Call != b.Call {
			return int(a.Call - b.Call)
		}
		return cmp.Or(a.ClientId%1000-b.ClientId%1000, strings.Compare(a.Input.(input).arg, b.Input.(input).arg))
	})
	return h.ops
}

// fingerprint is the history with its tokens renamed by first appearance: their numbers depend on
// which of two operations of one instant came first, their order for one key does not.
func (o Outcome) fingerprint() [32]byte {
	names := map[record.Version]record.Version{0: 0}
	name := func(v record.Version) record.Version {
		if _, ok := names[v]; !ok {
			names[v] = record.Version(len(names))
		}
		return names[v]
	}
	h := sha256.New()
	for _, op := range o.History {
		in, out := op.Input.(input), op.Output.(output)
		in.token, out.token = name(in.token), name(out.token)
		_, _ = fmt.Fprintln(h, in, out, op.Call, op.Return)
	}
	return [32]byte(h.Sum(nil))
}
