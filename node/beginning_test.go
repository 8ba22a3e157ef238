package node

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"kai/backup"
	"kai/node/record"
	"kai/node/ring"
)

// A key's partition, of whatever number, is among those that its partition of another number overlaps.
func TestOverlap(t *testing.T) {
	for _, of := range []int{1, 4, 64, 1024} {
		for _, now := range []int{1, 4, 64, 1024} {
			all := 0
			for p := range of {
				from, end := overlap(p, of, now)
				all += end - from
			}
			if all != max(of, now) {
				t.Errorf("%d of %d: %d overlaps", now, of, all)
			}
			for i := range 1000 {
				hash := ring.Hash([]byte{byte(i), byte(i >> 8)})
				from, end := overlap(int(ring.PartitionOf(hash, of)), of, now)
				if p := int(ring.PartitionOf(hash, now)); p < from || p >= end {
					t.Fatalf("%d of %d: partition %d is not within %d to %d", now, of, p, from, end)
				}
			}
		}
	}
}

// TestLoad loads a snapshot of a node with some partitions into nodes with as many, fewer and more, and finds every record there, those that are too large
// for tables that are built, too; and once more, as a founder does that died before it had noted that it has all.
func TestLoad(t *testing.T) {
	url := "file://" + t.TempDir()
	founding := func(partitions int, snapshot string) ring.Founding {
		return ring.Founding{ClusterID: "00000000000000000000000000000001", Generation: 1, Name: "kai", Quorum: ring.Quorum{N: 3, R: 2, W: 2},
			Partitions: partitions, VNodes: 16, Snapshot: snapshot}
	}
	const count, large = 5000, 3
	n, d, end := benchNode(t, url, founding(16, ""))
	full := &beginning{n: n, d: d, room: newRoom()}
	first := confsOf(d)
	r := rand.New(rand.NewPCG(1, 1))
	want := map[string][]byte{}
	for i := range count + large {
		value := make([]byte, 104)
		if i >= count {
			value = make([]byte, 900_000)
		}
		key, enc, _ := benchRecord(r, i, value)
		want[string(key)] = slices.Clone(value)
		if err := full.take(t.Context(), first, key, enc); err != nil {
			t.Fatal(err)
		}
	}
	full.wait.Wait()
	bucket, err := n.bucket.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := backup.New(backup.Options{Bucket: bucket, Cluster: "c", Node: "n", Partitions: 16, Leaves: BackupLeaves, Source: snapshotSource{d},
		Patience: BackupPatience, Look: time.Second, Logger: n.log})
	if _, err := s.Take(t.Context(), "s", func(int) time.Duration { return 0 }); err != nil {
		t.Fatal(err)
	}
	end()
	for _, partitions := range []int{16, 2, 128} {
		n, d, end := benchNode(t, url, founding(partitions, "s"))
		for try := range 2 {
			l := &beginning{n: n, d: d, room: newRoom()}
			if err := l.run(t.Context()); err != nil {
				t.Fatalf("%d partitions: %v", partitions, err)
			}
			for key, value := range want {
				hash := ring.Hash([]byte(key))
				enc, found, err := n.store.Get(nil, ring.PartitionOf(hash, partitions), hash, []byte(key))
				var got record.Record
				if err != nil || !found || record.Decode([]byte(key), enc, &got) != nil || !bytes.Equal(got.Value, value) {
					t.Fatalf("%d partitions, load %d: %q is not as it was: found %v, %v", partitions, try, key, found, err)
				}
				if got.Ballot.Epoch != 1 {
					t.Fatalf("%q has the ballot %v", key, got.Ballot)
				}
			}
			held := 0
			for p := range partitions {
				if err := n.store.Scan(ring.Partition(p), nil, func(_, _ []byte) error { held++; return nil }); err != nil {
					t.Fatal(err)
				}
			}
			if held != len(want) {
				t.Errorf("%d partitions, load %d: %d records instead of %d", partitions, try, held, len(want))
			}
		}
		end()
	}
}
