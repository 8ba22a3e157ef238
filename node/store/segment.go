package store

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"sync"
)

// A segment is a file of fixed size: a header, then entries up to an end entry or, in the newest, to
// the first thing that is not an entry.
//
//	0 "KAILOG\r\n"   8 format (4)   12 zero (4)   16 sequence number (8)   24 salt (8)
//	32 crc32c of the above (4)   36 zero   64 entries
type segment struct {
	seq  uint64
	seed uint32 // start of all checksums in it
	size int64
	file File
}

const (
	segmentHeaderLen = 64
	segmentMagic     = "KAILOG\r\n"
	// segmentFormat 2 has entries of kindPurge, in which a build that knows only 1 would see the end
	// of the log. What such a build wrote is read.
	segmentFormat    = 2
	oldSegmentFormat = 1
	segmentSuffix    = ".log"
	sparePrefix      = "spare."
)

func segmentName(seq uint64) string { return fmt.Sprintf("%016x%s", seq, segmentSuffix) }

func parseSegmentName(name string) (seq uint64, ok bool) {
	hex, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	seq, err := strconv.ParseUint(hex, 16, 64)
	return seq, err == nil
}

// segmentHeader returns a header with a new salt.
func segmentHeader(seq uint64) ([]byte, error) {
	h := make([]byte, segmentHeaderLen)
	copy(h, segmentMagic)
	binary.LittleEndian.PutUint32(h[8:], segmentFormat)
	binary.LittleEndian.PutUint64(h[16:], seq)
	if _, err := rand.Read(h[24:32]); err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint32(h[32:], crc32.Checksum(h[:32], castagnoli))
	return h, nil
}

func seedOf(header []byte) uint32 { return crc32.Checksum(header[16:32], castagnoli) }

// checkHeader verifies the header of the segment seq.
func checkHeader(h []byte, seq uint64) error {
	switch {
	case len(h) < segmentHeaderLen || string(h[:8]) != segmentMagic ||
		binary.LittleEndian.Uint32(h[32:]) != crc32.Checksum(h[:32], castagnoli):
		return errors.New("its header is damaged")
	case binary.LittleEndian.Uint32(h[8:]) > segmentFormat || binary.LittleEndian.Uint32(h[8:]) < oldSegmentFormat:
		return fmt.Errorf("it has format %d, this build reads %d to %d",
			binary.LittleEndian.Uint32(h[8:]), oldSegmentFormat, segmentFormat)
	case binary.LittleEndian.Uint64(h[16:]) != seq:
		return fmt.Errorf("its header is that of segment %d", binary.LittleEndian.Uint64(h[16:]))
	}
	return nil
}

// segments are the files of the log. Files no longer needed become spares: their blocks are written
// already, which makes syncs faster, and no space has to be found for them.
type segments struct {
	mu      sync.Mutex
	used    []*segment // oldest first; the last may still be waiting as tail.spare
	free    []string   // names of spare files
	last    uint64     // highest sequence number given
	spareNo int
}

// make prepares the next segment from a spare file, or a new one. It may take long. Not concurrent.
func (g *segments) make(disk Disk, size int64) (*segment, error) {
	g.mu.Lock()
	seq, name := g.last+1, ""
	if n := len(g.free); n > 0 {
		name, g.free = g.free[n-1], g.free[:n-1]
	}
	g.mu.Unlock()
	file, name, err := g.spareFile(disk, name, size)
	if err != nil {
		return nil, err
	}
	seg, err := start(file, seq, size)
	if err == nil {
		// Only now, with a durable header, does it get a segment's name: a file with that name and
		// without that header is damaged, not unfinished.
		err = disk.Rename(name, segmentName(seq))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close(), disk.Remove(name))
	}
	g.mu.Lock()
	g.last, g.used = seq, append(g.used, seg)
	g.mu.Unlock()
	return seg, nil
}

// spareFile opens the spare of that name if it has the right size, else makes one.
func (g *segments) spareFile(disk Disk, name string, size int64) (File, string, error) {
	if name != "" {
		file, err := disk.Open(name)
		if err != nil {
			return nil, "", err
		}
		if have, err := file.Size(); err == nil && have == size {
			return file, name, nil
		}
		if err := errors.Join(file.Close(), disk.Remove(name)); err != nil {
			return nil, "", err
		}
	}
	name = g.spareName()
	file, err := disk.Create(name, size)
	return file, name, err
}

func (g *segments) spareName() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.spareNo++
	return sparePrefix + strconv.Itoa(g.spareNo)
}

// start writes a new header. Whatever entries the file holds are dead with the old salt.
func start(file File, seq uint64, size int64) (*segment, error) {
	header, err := segmentHeader(seq)
	if err != nil {
		return nil, err
	}
	if _, err := file.WriteAt(header, 0); err != nil {
		return nil, err
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	return &segment{seq: seq, seed: seedOf(header), size: size, file: file}, nil
}

// maxSpares bounds the spare files kept.
const maxSpares = 2

// release turns the segments before seq into spares, or removes them.
func (g *segments) release(disk Disk, seq uint64) error {
	g.mu.Lock()
	var old []*segment
	for len(g.used) > 1 && g.used[0].seq < seq {
		old, g.used = append(old, g.used[0]), g.used[1:]
	}
	g.mu.Unlock()
	var errs []error
	for _, seg := range old {
		errs = append(errs, seg.file.Close(), g.retire(disk, segmentName(seg.seq)))
	}
	return errors.Join(errs...)
}

// retire makes the file a spare if one more is of use, else removes it.
func (g *segments) retire(disk Disk, name string) error {
	g.mu.Lock()
	keep := len(g.free) < maxSpares
	g.mu.Unlock()
	if !keep {
		return disk.Remove(name)
	}
	spare := g.spareName()
	if err := disk.Rename(name, spare); err != nil {
		return err
	}
	g.mu.Lock()
	g.free = append(g.free, spare)
	g.mu.Unlock()
	return nil
}

// adopt notes a spare file that a former run left. Its size is checked when it is used.
func (g *segments) adopt(disk Disk, name string) error {
	no, ok := strings.CutPrefix(name, sparePrefix)
	if !ok {
		return nil
	}
	if n, err := strconv.Atoi(no); err != nil || len(g.free) == maxSpares {
		return disk.Remove(name)
	} else {
		g.spareNo = max(g.spareNo, n)
	}
	g.free = append(g.free, name)
	return nil
}

func (g *segments) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, seg := range g.used {
		errs = append(errs, seg.file.Close())
	}
	g.used = nil
	return errors.Join(errs...)
}
