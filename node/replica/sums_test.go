package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

// scanned are the sums by what is on the disk.
func (d *disk) scanned() (all [message.Leaves]uint64) {
	_ = d.Scan(0, nil, func(key, enc []byte) error {
		h := ring.Hash(key)
		all[message.Leaf(h)] += message.Term(h, record.PeekBallot(enc))
		return nil
	})
	return all
}

func (r *rig) putAt(key string, b record.Ballot) *asked {
	rec := record.Record{Ballot: b, Kind: record.Value, Version: 1, CAS: 1, Value: []byte("v")}
	return r.ask(message.Request{Kind: message.Accept, Key: []byte(key), Record: record.Append(nil, []byte(key), &rec)})
}

// sumsNow asks, and reports whether that took a scan.
func (r *rig) sumsNow() (all [message.Leaves]uint64, scan bool) {
	_, known := r.knownSums(0)
	a := r.ask(message.Request{Kind: message.Sums, Key: []byte{}})
	if a.Reply.Status != message.OK || len(a.Reply.Items) != 8*message.Leaves {
		r.t.Fatalf("sums: %s, %d bytes", a.Reply.Status, len(a.Reply.Items))
	}
	for i := range all {
		all[i] = binary.LittleEndian.Uint64(a.Reply.Items[8*i:])
	}
	return all, !known
}

func TestSumsAreKeptWithEachWrite(t *testing.T) {
	d := newDisk()
	r := newRig(t, d)
	for i := range 300 { // of an earlier life
		k := fmt.Sprintf("old%d", i)
		d.records[k] = record.Append(nil, []byte(k), &record.Record{Ballot: ballot(1), Kind: record.Value, Version: 1, CAS: 1})
	}
	if all, scan := r.sumsNow(); all != d.scanned() || !scan {
		t.Fatalf("the first sums are wrong (scanned: %v)", scan)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		r.putAt(fmt.Sprintf("old%d", rnd.IntN(400)), ballot(2+i/2)) // some twice, some refused
		if i%500 != 0 {
			continue
		}
		if all, scan := r.sumsNow(); all != d.scanned() || scan {
			t.Fatalf("after %d writes the sums are wrong (scanned: %v)", i, scan)
		}
	}
	all, _ := r.sumsNow()
	same := r.ask(message.Request{Kind: message.Sums, Key: []byte{}, Items: binary.LittleEndian.AppendUint64(nil, message.Root(all[:]))})
	if len(same.Reply.Items) != 0 || same.Reply.Status != message.OK {
		t.Errorf("asked by the same root: %s, %d bytes", same.Reply.Status, len(same.Reply.Items))
	}
	other := r.ask(message.Request{Kind: message.Sums, Key: []byte{}, Items: make([]byte, 8)})
	if len(other.Reply.Items) != 8*message.Leaves {
		t.Errorf("asked by another root: %d bytes", len(other.Reply.Items))
	}
}

// A write that failed leaves a leaf unknown, and so do writes staged meanwhile, which took its ballot for
// the one that they replace.
func TestSumsAfterAFailedWrite(t *testing.T) {
	d := newDisk()
	r := newRig(t, d)
	r.putAt("a", ballot(1))
	r.sumsNow()
	d.hold = true
	r.putAt("a", ballot(2))
	first := d.staged
	d.staged = nil
	r.putAt("a", ballot(3))
	second := d.staged
	d.staged = first
	d.release(errFull)
	d.staged, d.hold = second, false
	scanned := make(chan struct{})
	go func() { // a scan between the two must not take the leaf for known
		r.sumsNow()
		close(scanned)
	}()
	<-scanned
	d.release(nil)
	if all, _ := r.sumsNow(); all != d.scanned() {
		t.Error("the sums are wrong")
	}
	if all, scan := r.sumsNow(); all != d.scanned() || scan {
		t.Errorf("the sums are wrong or not known (scanned: %v)", scan)
	}
}

// Scans among writers never leave a wrong sum behind.
func TestSumsAmongWriters(t *testing.T) {
	d := newDisk()
	r := newRig(t, d)
	d.hold = true
	stop := make(chan struct{})
	var committer, writers sync.WaitGroup
	committer.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				d.release(nil)
				return
			default:
			}
			var err error
			if n%97 == 0 {
				err = errFull
			}
			d.release(err)
		}
	})
	for w := range 4 {
		writers.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 9))
			for i := range 500 {
				k := fmt.Appendf(nil, "key%d", rnd.IntN(50))
				rec := record.Record{Ballot: ballot(1 + 4*i + w), Kind: record.Value, Version: 1, CAS: 1}
				call(r, message.Request{Kind: message.Accept, Key: k, Record: record.Append(nil, k, &rec)})
				if i%50 == 0 {
					if _, err := r.scanSums(0); err != nil && !errors.Is(err, errDisk) {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	committer.Wait()
	// Leaves that are known now are right; one scan in peace makes all known.
	want, t0 := d.scanned(), r.leaves(0)
	for i := range t0 {
		if t0[i].known && t0[i].sum != want[i] {
			t.Errorf("leaf %d is wrong", i)
		}
	}
	if all, _ := r.sumsNow(); all != want {
		t.Error("the sums are wrong")
	}
	if _, scan := r.sumsNow(); scan {
		t.Error("not all leaves are known after a scan in peace")
	}
}
