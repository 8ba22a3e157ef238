package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
)

// logImage runs a store whose table gets nothing, and returns its disk as a crash leaves it, and
// what was acknowledged, in order.
func logImage(t *testing.T, writes int, pad func(i int) int) (*MemDisk, []string) {
	t.Helper()
	opts := logOptions(NewMemDisk(MemDiskOptions{}), NewMemTable())
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan struct{})
	go func() { defer close(ran); s.Run(t.Context()) }()
	put(t, s, "ghost", 1, 10)
	purge(t, s, "ghost")
	var keys []string
	for i := range writes {
		key := fmt.Sprintf("key-%d", i)
		put(t, s, key, uint64(i+1), pad(i))
		keys = append(keys, key)
	}
	s.Abort()
	<-ran
	return opts.Disk.(*MemDisk).Crash(nil), keys
}

func logOptions(disk *MemDisk, table *MemTable) Options {
	opts := small(Options{Disk: disk, Table: table})
	opts.OverlayBytes = 128 << 10 // keeps all
	opts.MaxRecordBytes = 1 << 10
	opts.SegmentBytes = 4 << 10
	return opts
}

// freshState is the table as the run of logImage found it: told that a log begins at segment 1.
func freshState(t *testing.T) *MemTable {
	table := NewMemTable()
	if err := table.Apply([]Row{appliedRow(position{segment: 1}), state{Known: true, Logging: true}.row()}); err != nil {
		t.Fatal(err)
	}
	return table
}

// recovered opens a crashed disk and returns how many of keys are there. They must be the first
// ones, and right.
func recovered(t *testing.T, disk *MemDisk, keys []string) (int, error) {
	t.Helper()
	s, err := Open(logOptions(disk, freshState(t)))
	if err != nil {
		return 0, err
	}
	defer s.Close()
	have := 0
	for i, key := range keys {
		switch got(t, s, key) {
		case uint64(i + 1):
			if have != i {
				t.Fatalf("%s is there, but not all before it", key)
			}
			have++
		case 0:
		default:
			t.Fatalf("%s has a value never written", key)
		}
	}
	if have > 0 && got(t, s, "ghost") != 0 {
		t.Fatal("purged before them, but there")
	}
	return have, nil
}

func logSegments(t *testing.T, disk *MemDisk) []string {
	names, err := disk.List()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool { _, ok := parseSegmentName(n); return !ok })
}

// The end of the log may be cut anywhere: what is before the cut is there. That a later write was
// acknowledged is proof of the earlier; so of cuts before the last batch, the log complains.
func TestLogCutAnywhere(t *testing.T) {
	disk, keys := logImage(t, 12, func(int) int { return 20 })
	if have, err := recovered(t, disk.Clone(), keys); err != nil || have != len(keys) {
		t.Fatalf("uncut: %d, %v", have, err)
	}
	for cut := segmentHeaderLen; cut < 4<<10; cut++ {
		torn := disk.Clone()
		if err := torn.Corrupt(segmentName(1), func(b []byte) { clear(b[cut:]) }); err != nil {
			t.Fatal(err)
		}
		if _, err := recovered(t, torn, keys); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

// One flipped bit anywhere is noticed, or it is in the last batch and cuts that off, or it does not
// matter. Never is there wrong data, nor a hole.
func TestLogBitFlips(t *testing.T) {
	disk, keys := logImage(t, 14, func(i int) int { return i * 40 })
	rng := rand.New(rand.NewPCG(3, 4))
	var refused, cut int
	for _, name := range logSegments(t, disk) {
		for at := range 4 << 10 {
			bad := disk.Clone()
			if err := bad.Corrupt(name, func(b []byte) { b[at] ^= 1 << rng.IntN(8) }); err != nil {
				t.Fatal(err)
			}
			have, err := recovered(t, bad, keys)
			switch {
			case errors.Is(err, ErrLogCorrupt):
				refused++
			case err != nil:
				t.Fatalf("%s at %d: %v", name, at, err)
			case have < len(keys)-1:
				t.Fatalf("%s at %d: only %d of %d, without an error", name, at, have, len(keys))
			case have < len(keys):
				cut++
			}
		}
	}
	if refused == 0 || cut == 0 {
		t.Errorf("refused %d, cut %d: the test does not reach both", refused, cut)
	}
}

func TestLogMissingSegment(t *testing.T) {
	disk, keys := logImage(t, 30, func(int) int { return 300 })
	names := logSegments(t, disk)
	if len(names) < 3 {
		t.Fatalf("only %v", names)
	}
	for i, name := range names[:len(names)-1] {
		less := disk.Clone()
		if err := less.Remove(name); err != nil {
			t.Fatal(err)
		}
		_, err := recovered(t, less, keys)
		if !errors.Is(err, ErrLogCorrupt) {
			t.Errorf("segment %d of %d missing: %v", i, len(names), err)
		}
	}
	none := NewMemDisk(MemDiskOptions{})
	if _, err := recovered(t, none, keys); !errors.Is(err, ErrLogCorrupt) {
		t.Errorf("no segments: %v", err)
	}
}

// A file used again holds entries of its former life, whole and with good checksums of their time.
func TestRecycledSegmentsDoNotResurrect(t *testing.T) {
	disk, keys := logImage(t, 40, func(int) int { return 200 })
	s, err := Open(logOptions(disk, freshState(t)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Segments != 0 {
		t.Fatalf("%d segments open", st.Segments)
	}
	// The table forgets all but where the log goes on: whatever now appears comes from the old file.
	table := NewMemTable()
	seq, _ := parseSegmentName(logSegments(t, disk)[0])
	if err := table.Apply([]Row{appliedRow(position{segment: seq}), state{Known: true, Logging: true}.row()}); err != nil {
		t.Fatal(err)
	}
	s, err = Open(logOptions(disk, table))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, key := range keys {
		if have := got(t, s, key); have != 0 {
			t.Fatalf("%s rose from the dead", key)
		}
	}
}

// What a build before purges wrote is read; what a later one may write is not.
func TestLogFormats(t *testing.T) {
	disk, keys := logImage(t, 12, func(int) int { return 20 })
	for format, ok := range map[uint32]bool{oldSegmentFormat: true, segmentFormat: true, 0: false, segmentFormat + 1: false} {
		other := disk.Clone()
		err := other.Corrupt(segmentName(1), func(b []byte) {
			binary.LittleEndian.PutUint32(b[8:], format)
			binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
		})
		if err != nil {
			t.Fatal(err)
		}
		have, err := recovered(t, other, keys)
		if ok && (err != nil || have != len(keys)) || !ok && !errors.Is(err, ErrLogCorrupt) {
			t.Errorf("format %d: %d, %v", format, have, err)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	e := entry{kind: kindRecord, p: 7, hash: 99, key: []byte("key"), value: []byte("value")}
	buf := make([]byte, e.size())
	e.put(buf, 5, 64)
	f.Add(buf, uint32(5), uint32(64))
	f.Add(buf[:20], uint32(5), uint32(64))
	e = entry{kind: kindPurge, p: 7, hash: 99, key: []byte("key")}
	gone := make([]byte, e.size())
	e.put(gone, 5, 72)
	f.Add(gone, uint32(5), uint32(72))
	f.Fuzz(func(t *testing.T, b []byte, seed, off uint32) {
		e, n, ok := parseEntry(b, seed, off)
		if !ok {
			return
		}
		if n > len(b) || n%8 != 0 || n != e.size() {
			t.Fatalf("size %d of %d bytes, entry %d", n, len(b), e.size())
		}
		again := make([]byte, n)
		e.put(again, seed, off)
		if back, _, ok := parseEntry(again, seed, off); !ok || back.kind != e.kind || !back.is(&e) {
			t.Fatal("does not parse again")
		}
		if _, _, ok := parseEntry(b, seed, off+8); ok {
			t.Fatal("passes at another offset")
		}
	})
}
