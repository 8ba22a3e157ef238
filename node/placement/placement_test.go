package placement

import (
	"encoding/hex"
	"errors"
	"sync"
	"testing"

	"kai/node/ring"
)

func founding(nodes ...ring.NodeID) ring.Founding {
	f := ring.Founding{ClusterID: "c", Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 64, VNodes: 16}
	for _, id := range nodes {
		f.Nodes = append(f.Nodes, ring.Node{ID: id})
	}
	return f
}

func TestFirstConfigurations(t *testing.T) {
	f := founding("a", "b", "c", "d")
	configurations := Configurations(f)
	if len(configurations) != f.Partitions {
		t.Fatalf("%d configurations", len(configurations))
	}
	for p, c := range configurations {
		if c.Epoch != 1 || len(c.Members) != 3 || len(c.Next) != 0 {
			t.Errorf("partition %d: %+v", p, c)
		}
	}
	if c := Configurations(founding("a"))[0]; len(c.Members) != 1 {
		t.Errorf("one node: %+v", c)
	}
}

func TestNewRefusesWrongCount(t *testing.T) {
	f := founding("a")
	if _, err := New(f, Configurations(f)[1:], nil); err == nil {
		t.Error("63 configurations for 64 partitions taken")
	}
}

func TestAdoptTakesOnlyNewer(t *testing.T) {
	f := founding("a", "b", "c")
	var seen []uint32
	table, err := New(f, Configurations(f), func(p ring.Partition, c ring.Configuration) { seen = append(seen, c.Epoch) })
	if err != nil {
		t.Fatal(err)
	}
	before := table.Snapshot()
	joint := ring.Configuration{Epoch: 2, Members: []ring.NodeID{"a", "b", "c"}, Next: []ring.NodeID{"a", "b", "d"}}
	for i, c := range []struct {
		p    ring.Partition
		c    ring.Configuration
		want bool
	}{
		{5, ring.Configuration{Epoch: 1, Members: []ring.NodeID{"x"}}, false},
		{5, joint, true},
		{5, joint, false},
		{64, joint, false},
		{1<<32 - 1, joint, false},
		{6, ring.Configuration{Epoch: 9}, false},
		{6, ring.Configuration{Epoch: 9, Members: []ring.NodeID{"a", "a"}}, false},
		{5, ring.Configuration{Epoch: 7, Members: joint.Next}, true},
	} {
		if got := table.Adopt(c.p, c.c); got != c.want {
			t.Errorf("step %d: Adopt = %v", i, got)
		}
	}
	if len(seen) != 2 || seen[0] != 2 || seen[1] != 7 {
		t.Errorf("observer saw %v", seen)
	}
	if before.At(5).Epoch != 1 || table.Configuration(5).Epoch != 7 || table.Configuration(6).Epoch != 1 {
		t.Error("a snapshot changed, or a neighbour did")
	}
}

func TestAdoptConcurrently(t *testing.T) {
	f := founding("a", "b", "c")
	var seen []uint32
	table, err := New(f, Configurations(f), func(p ring.Partition, c ring.Configuration) { seen = append(seen, c.Epoch) })
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for epoch := uint32(2); epoch < 200; epoch++ {
				table.Adopt(3, ring.Configuration{Epoch: epoch, Members: []ring.NodeID{"a"}})
				if table.Configuration(3).Epoch < epoch {
					t.Error("an epoch went back")
				}
			}
		})
	}
	wg.Wait()
	for i := range seen {
		if i > 0 && seen[i] <= seen[i-1] {
			t.Fatalf("observer saw %v", seen)
		}
	}
}

func TestCodec(t *testing.T) {
	for _, c := range []ring.Configuration{
		{Epoch: 1, Members: []ring.NodeID{"00000000000000aa"}},
		{Epoch: 1<<32 - 1, Members: []ring.NodeID{"a", "b", "c"}, Next: []ring.NodeID{"b", "c", "d"}},
	} {
		b := AppendConfiguration(nil, c)
		got, err := DecodeConfiguration(b)
		if err != nil || !got.Equal(c) {
			t.Fatalf("%+v: %+v, %v", c, got, err)
		}
		for i := range b {
			b[i] ^= 4
			if _, err := DecodeConfiguration(b); !errors.Is(err, ErrCorrupt) {
				t.Errorf("byte %d flipped: %v", i, err)
			}
			b[i] ^= 4
		}
	}
	// The bytes are a format: disks hold them.
	const golden = "01000000070201610162010163ead2cebc"
	got := hex.EncodeToString(AppendConfiguration(nil, ring.Configuration{Epoch: 7, Members: []ring.NodeID{"a", "b"}, Next: []ring.NodeID{"c"}}))
	if got != golden {
		t.Errorf("the format has changed: %s", got)
	}
}

func FuzzDecodeConfiguration(f *testing.F) {
	f.Add(AppendConfiguration(nil, ring.Configuration{Epoch: 7, Members: []ring.NodeID{"a", "b"}, Next: []ring.NodeID{"c"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		// A checksum keeps a fuzzer out: put the right one there first.
		if len(b) >= 4 {
			b = append([]byte(nil), b...)
			s := checksum(b[:len(b)-4])
			b = append(b[:len(b)-4], byte(s>>24), byte(s>>16), byte(s>>8), byte(s))
		}
		c, err := DecodeConfiguration(b)
		if err != nil {
			return
		}
		if again := AppendConfiguration(nil, c); string(again) != string(b) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", b, c, again)
		}
	})
}

func BenchmarkConfiguration(b *testing.B) {
	f := founding("a", "b", "c")
	table, err := New(f, Configurations(f), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = table.Configuration(7)
	}
}
