package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/ristretto/v2/z"

	"kai/backup"
	"kai/node/record"
	"kai/node/ring"
)

// benchRecords is how many records of 100 bytes, half of them random, the benchmarks of snapshots move.
const benchRecords = 1_000_000

func benchRecord(r *rand.Rand, i int, value []byte) (key, enc []byte, hash uint64) {
	for k := 0; k < len(value)/2; k += 8 {
		binary.LittleEndian.PutUint64(value[k:], r.Uint64())
	}
	key = fmt.Appendf(nil, "record-%d", i)
	stamp := record.NewStamp(record.Ticks(time.Unix(1760000000, 0))+uint64(i), 1)
	enc = record.Append(nil, key, &record.Record{Kind: record.Value, Value: value, Version: record.Version(stamp), CAS: record.Version(stamp), Ballot: record.Ballot{Epoch: 1, Stamp: stamp}})
	return key, enc, ring.Hash(key)
}

// benchNode is a node alone in its cluster, whose store runs, and which talks to nobody.
func benchNode(b testing.TB, url string, f ring.Founding) (n *node, d *dataPath, end func()) {
	b.Helper()
	cfg, err := Load(map[string]string{"KAI_DATA_DIR": b.TempDir(), "KAI_BACKUP_URL": url, "KAI_ADVERTISE": "127.0.0.1"})
	if err != nil {
		b.Fatal(err)
	}
	n = &node{cfg: cfg, opts: Options{}, log: slog.New(slog.DiscardHandler), bucket: &keptBucket{cfg: cfg}}
	if err := n.open(b.Context()); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = n.store.Run(ctx); close(ended) }()
	end = func() {
		stop()
		<-ended
		_ = n.store.Close()
		n.bucket.close()
	}
	f.Nodes = []ring.Node{{ID: n.identity.Node}}
	if d, err = n.newDataPath(f); err != nil {
		b.Fatal(err)
	}
	n.data.Store(d)
	return n, d, end
}

// confsOf are those of all partitions.
func confsOf(d *dataPath) []ring.Configuration {
	all := d.table.Snapshot()
	confs := make([]ring.Configuration, all.Len())
	for p := range confs {
		confs[p] = all.At(ring.Partition(p))
	}
	return confs
}

// plainBadger is an empty Badger, as Badger itself would have it, but for compression, which Kai's has not either.
func plainBadger(b *testing.B) *badger.DB {
	b.Helper()
	db, err := badger.Open(badger.DefaultOptions(b.TempDir()).WithLogger(nil).WithCompression(0))
	if err != nil {
		b.Fatal(err)
	}
	return db
}

// stream writes items, which are in order, by Badger's stream writer.
func stream(b *testing.B, db *badger.DB, items []*pb.KV) {
	b.Helper()
	w := db.NewStreamWriter()
	if err := w.Prepare(); err != nil {
		b.Fatal(err)
	}
	buf := z.NewBuffer(1<<20, "bench")
	defer func() { _ = buf.Release() }()
	for i, kv := range items {
		badger.KVToBuffer(kv, buf)
		if buf.LenNoPadding() > 1<<20 || i == len(items)-1 {
			if err := w.Write(buf); err != nil {
				b.Fatal(err)
			}
			buf.Reset()
		}
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
}

// prefixScan reads all keys of a prefix and their values, as Badger's documentation shows it, and returns the bytes of both, without the prefix.
func prefixScan(b *testing.B, db *badger.DB, prefix []byte, prefetch bool) (size int64) {
	b.Helper()
	o := badger.DefaultIteratorOptions
	o.PrefetchValues, o.Prefix = prefetch, prefix
	err := db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			if err := item.Value(func(v []byte) error { size += int64(len(item.Key()) - len(prefix) + len(v)); return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return size
}

// BenchmarkSnapshot moves the same records by: Badger's own stream writer, into an empty table; scans of that by prefix, of all partitions; the same of Kai's store, what
// is not in its table yet and all checks included; a snapshot, into a bucket that is a directory; and a founding's load from there, commit log and checks
// included. Figures are of the records' encodings.
func BenchmarkSnapshot(b *testing.B) {
	url := "file://" + b.TempDir()
	f := ring.Founding{ClusterID: "00000000000000000000000000000001", Generation: 1, Name: "kai", Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 64, VNodes: 16}
	n, d, end := benchNode(b, url, f)
	defer end()
	size := int64(0)
	full := &beginning{n: n, d: d, room: newRoom()}
	confs := confsOf(d)
	r, value := rand.New(rand.NewPCG(1, 1)), make([]byte, 100)
	for i := range benchRecords {
		key, enc, _ := benchRecord(r, i, value)
		size += int64(len(key) + len(enc))
		if err := full.take(b.Context(), confs, key, enc); err != nil {
			b.Fatal(err)
		}
	}
	full.wait.Wait()
	items := make([]*pb.KV, 0, benchRecords)
	for p := range ring.Partition(f.Partitions) {
		if err := n.store.Scan(p, nil, func(key, enc []byte) error {
			items = append(items, &pb.KV{Key: append(binary.BigEndian.AppendUint32(nil, uint32(p)), key...), Value: append([]byte(nil), enc...), Version: 1})
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("stream writer", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			b.StopTimer()
			db := plainBadger(b)
			b.StartTimer()
			stream(b, db, items)
			b.StopTimer()
			_ = db.Close()
			b.StartTimer()
		}
	})
	plain := plainBadger(b)
	stream(b, plain, items)
	defer plain.Close()
	items = nil
	for _, prefetch := range []bool{true, false} {
		b.Run(fmt.Sprintf("prefix scan of Badger/prefetch=%t", prefetch), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				got := int64(0)
				for p := range ring.Partition(f.Partitions) {
					got += prefixScan(b, plain, binary.BigEndian.AppendUint32(nil, uint32(p)), prefetch)
				}
				if got != size {
					b.Fatalf("%d bytes instead of %d", got, size)
				}
			}
		})
	}
	b.Run("scan", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			got := int64(0)
			for p := range ring.Partition(f.Partitions) {
				if err := n.store.Scan(p, nil, func(key, enc []byte) error { got += int64(len(key) + len(enc)); return nil }); err != nil {
					b.Fatal(err)
				}
			}
			if got != size {
				b.Fatalf("%d bytes instead of %d", got, size)
			}
		}
	})
	taken := 0
	bucket, err := n.bucket.open(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	take := func(b *testing.B) int64 {
		taken++
		// Each of another cluster, so that it has no parent.
		s := backup.New(backup.Options{Bucket: bucket, Cluster: fmt.Sprint("bench", taken), Node: "n", Partitions: f.Partitions, Leaves: BackupLeaves, Source: snapshotSource{d},
			Patience: BackupPatience, Look: time.Second, Logger: n.log})
		done, err := s.Take(b.Context(), fmt.Sprint("s", taken), func(int) time.Duration { return 0 })
		if err != nil {
			b.Fatal(err)
		}
		return done.Bytes
	}
	f.Snapshot = "s1"
	take(b)
	b.Run("snapshot", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			b.ReportMetric(float64(take(b))/float64(size), "uploaded/raw")
		}
	})
	b.Run("load", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			b.StopTimer()
			n, d, end := benchNode(b, url, f)
			b.StartTimer()
			l := &beginning{n: n, d: d, room: newRoom()}
			if err := l.run(b.Context()); err != nil || l.records.Load() != benchRecords {
				b.Fatalf("%d records, %v", l.records.Load(), err)
			}
			b.StopTimer()
			end()
			b.StartTimer()
		}
	})
}
