package backup

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gocloud.dev/gcerrors"
)

func testKey(t *testing.T, b byte) *Key {
	t.Helper()
	k, err := NewKey(bytes.Repeat([]byte{b}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// With a key nothing that was stored can be read in the bucket, and only with it all comes back; another key, or none, says so.
func TestEncryption(t *testing.T) {
	f, b := newFaultBucket(1)
	b.Key = testKey(t, 1)
	h := newHeld(300, 0)
	const word = "a secret that is repeated, a secret that is repeated"
	for i := range 100 {
		h.set("confidential", word)
		h.partitions[i%testPartitions]["confidential"] = word
	}
	one := take(t, b, "one", h)
	same(t, restored(t, b, one.Manifest), h.clone())
	verify(t, b, one.Manifest)
	for key, o := range f.objects {
		content := o.content
		if bytes.HasPrefix(content, zipMagic) {
			var err error
			if content, err = unzip.DecodeAll(content, nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range []string{"secret", "confidential", "key1"} {
			if bytes.Contains(content, []byte(s)) {
				t.Errorf("%s shows %q", key, s)
			}
		}
		if strings.HasPrefix(key, packsDir) && bytes.Contains(o.content, zipMagic) {
			t.Errorf("%s has a frame of zstd", key)
		}
	}
	all := func(int) bool { return true }
	for name, key := range map[string]*Key{"no key": nil, "another key": testKey(t, 2)} {
		other := *b
		other.Key = key
		if _, err := Restore(t.Context(), &other, one.Manifest, all, true, nil); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), b.Key.ID()) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Verify(t.Context(), &other, one.Manifest, true, nil); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := New(options(&other, "n1", h)).Take(t.Context(), "one", allNow); err != nil { // complete: nothing to do
			t.Errorf("%s: %v", name, err)
		}
		// Even if the manifest were not to tell.
		m := *one.Manifest
		m.Key = ""
		if _, err := Restore(t.Context(), &other, &m, all, false, nil); !errors.Is(err, ErrKey) && !errors.Is(err, ErrDamaged) {
			t.Errorf("%s, and the manifest does not tell: %v", name, err)
		}
	}
	// A node with another key takes no part in a snapshot; a later one with it takes nothing over, and is whole.
	other := *b
	other.Key = testKey(t, 2)
	if err := Announce(t.Context(), b, &Begin{Snapshot: "two", Cluster: "c", Partitions: testPartitions, Leaves: testLeaves}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := New(options(&other, "n2", h)).Take(t.Context(), "two", allNow); !errors.Is(err, ErrKey) || gcerrors.Code(err) == gcerrors.NotFound {
		t.Errorf("two keys in one snapshot: %v", err)
	}
	three := take(t, &other, "three", h)
	if three.Parent != "" || three.Unchanged > one.Unchanged { // empty ones
		t.Errorf("parent %q, %d leaves taken over", three.Parent, three.Unchanged)
	}
	same(t, restored(t, &other, three.Manifest), h.clone())
	four := take(t, &other, "four", h)
	if four.Parent != "three" || four.Unchanged != four.Leaves {
		t.Errorf("parent %q, %d of %d leaves taken over", four.Parent, four.Unchanged, four.Leaves)
	}
	if _, err := Prune(t.Context(), &Bucket{Bucket: b.Bucket}, PruneOptions{Keep: 1, Grace: time.Hour}); err != nil {
		t.Errorf("prune needs a key: %v", err)
	}
}

func TestNewKey(t *testing.T) {
	if k, err := NewKey(nil); k != nil || err != nil || k.ID() != "" {
		t.Errorf("none: %v, %v", k, err)
	}
	if _, err := NewKey(make([]byte, 16)); !errors.Is(err, ErrKey) {
		t.Errorf("too short: %v", err)
	}
	if a, b := testKey(t, 1).ID(), testKey(t, 2).ID(); a == b || len(a) != 12 {
		t.Errorf("ids %q %q", a, b)
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(1 << 20)
		began := time.Now()
		for range 10 {
			if err := p.wait(t.Context(), 1<<19); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 4500*time.Millisecond {
			t.Errorf("ten halves of a second took %v", took)
		}
		time.Sleep(time.Hour) // rest is not saved up
		began = time.Now()
		for range 3 {
			_ = p.wait(t.Context(), 1<<20)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("after a rest three seconds' worth took %v", took)
		}
		var none *Pace
		if none = NewPace(0); none != nil || none.wait(t.Context(), 1<<40) != nil {
			t.Error("no limit limits")
		}
		// A snapshot and a restore of it keep to the limit.
		_, b := newFaultBucket(1)
		b.Up, b.Down = NewPace(10_000), NewPace(20_000)
		h := newHeld(500, 100)
		began = time.Now()
		done := take(t, b, "one", h)
		if took, least := time.Since(began).Seconds(), float64(done.Bytes)/10_000*0.5; took < least {
			t.Errorf("%d bytes up in %.1f s", done.Bytes, took)
		}
		began = time.Now()
		same(t, restored(t, b, done.Manifest), h.clone())
		if took, least := time.Since(began).Seconds(), float64(done.Bytes)/20_000*0.5; took < least {
			t.Errorf("%d bytes down in %.1f s", done.Bytes, took)
		}
	})
}
