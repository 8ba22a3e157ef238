package replica

import (
	"runtime"
	"testing"

	"kai/node/message"
)

// A sealed replica takes nothing that changes what it holds or promises, and tells what it holds; what was on its way is durable when Seal returns.
func TestSeal(t *testing.T) {
	r := newRig(t, newDisk())
	r.disk.hold = true
	before := r.accept(ballot(3), ballot(3), "before")
	sealed := make(chan error, 1)
	go func() { sealed <- r.Seal() }()
	for r.disk.count() < 2 { // the mark behind the record
		runtime.Gosched()
	}
	select {
	case err := <-sealed:
		t.Fatalf("sealed while a write is on its way: %v", err)
	default:
	}
	r.disk.hold = false
	r.disk.release(nil)
	if err := <-sealed; err != nil || before.Reply.Status != message.OK {
		t.Fatalf("%v; the write before: %s", err, before.Reply.Status)
	}
	for _, a := range []*asked{r.prepare(ballot(9)), r.accept(ballot(9), ballot(9), "after")} {
		if a.Reply.Status != message.NotVoting {
			t.Errorf("a sealed replica answers %s", a.Reply.Status)
		}
	}
	if a := r.read(); a.Reply.Status != message.OK || a.Reply.Ballot != ballot(3) {
		t.Errorf("it tells %v, %s", a.Reply.Ballot, a.Reply.Status)
	}
	r.Unseal()
	if a := r.accept(ballot(9), ballot(9), "after"); a.Reply.Status != message.OK {
		t.Errorf("unsealed it answers %s", a.Reply.Status)
	}
}

// count is how many writes wait.
func (d *disk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.staged)
}
