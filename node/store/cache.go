package store

import (
	"bytes"
	"encoding/binary"
)

// cache is a shard's share of the record cache: records as the table has them, and keys known to be
// absent. Entries are laid one behind the other into blocks; when the last block is full, the
// oldest is emptied, except for what was read since it came there (a second chance). Blocks hold no
// pointers. Its user holds the shard's lock, and has the index of the shard say where entries are.
//
//	0 hash (8)   8 partition (4)   12 length of value (4)   16 length of key (1)   17 bits (1)
//	18 zero (6)  24 key, value, up to 8
type cache struct {
	index  *index[where] // the shard's: places in the cache are in units of 8 bytes, counted through all blocks
	memory *arena
	blocks [][]byte // allocated when first needed
	sizes  []int    // used bytes of each
	block  int      // length of a block; 0: no cache
	head   int      // block being filled
}

const (
	cacheHeaderLen = 24
	bitAbsent      = 1
	bitRead        = 2
	// maxBlock bounds what is cached: larger records would push out too many small ones, and cost
	// little to read from the table in comparison with sending them.
	maxBlock = 128 << 10
)

func (c *cache) init(index *index[where], memory *arena, bytes int64) {
	const leastBlocks = 4
	c.index, c.memory = index, memory
	c.block = int(min(bytes/leastBlocks, maxBlock)) &^ 7
	if c.block < 512 {
		c.block = 0
		return
	}
	n := int(bytes) / c.block
	c.blocks, c.sizes = make([][]byte, n), make([]int, n)
}

func cacheEntrySize(key, value int) int { return (cacheHeaderLen + key + value + 7) &^ 7 }

// sizeAt is the size of the entry at the start of b.
func cacheSizeAt(b []byte) int {
	return cacheEntrySize(int(b[16]), int(binary.LittleEndian.Uint32(b[12:])))
}

// bytes returns the bytes from a place on.
func (c *cache) bytes(at where) []byte {
	off := int(at) * 8
	return c.blocks[off/c.block][off%c.block:]
}

// at returns the value of want's key, valid while the shard is locked, if that is what is cached at
// the place that the index gives for its hash.
func (c *cache) at(at where, want *entry) (value []byte, found, known bool) {
	b := c.bytes(at)
	keyEnd := cacheHeaderLen + int(b[16])
	if want.kind != kindRecord || binary.LittleEndian.Uint32(b[8:]) != uint32(want.p) ||
		!bytes.Equal(b[cacheHeaderLen:keyEnd], want.key) {
		return nil, false, false
	}
	b[17] |= bitRead
	if b[17]&bitAbsent != 0 {
		return nil, false, true
	}
	return b[keyEnd : keyEnd+int(binary.LittleEndian.Uint32(b[12:]))], true, true
}

// put replaces whatever is cached under e's hash by e, or by e's absence; false: it cannot be cached.
func (c *cache) put(e *entry, present bool) bool {
	if c.block == 0 {
		return false
	}
	value := e.value
	if !present {
		value = nil
	}
	n := cacheEntrySize(len(e.key), len(value))
	if n > c.block {
		return false
	}
	b, at := c.room(n)
	binary.LittleEndian.PutUint64(b, e.hash)
	binary.LittleEndian.PutUint32(b[8:], uint32(e.p))
	binary.LittleEndian.PutUint32(b[12:], uint32(len(value)))
	b[16], b[17] = byte(len(e.key)), 0
	if !present {
		b[17] = bitAbsent
	}
	copy(b[cacheHeaderLen:], e.key)
	copy(b[cacheHeaderLen+len(e.key):], value)
	c.index.put(e.hash, at)
	return true
}

// room finds n bytes.
func (c *cache) room(n int) ([]byte, where) {
	for c.blocks[c.head] != nil && c.sizes[c.head]+n > c.block {
		c.head = (c.head + 1) % len(c.blocks)
		c.sweep(c.head)
	}
	if c.blocks[c.head] == nil {
		c.blocks[c.head] = c.memory.alloc(c.block)
	}
	off := c.sizes[c.head]
	c.sizes[c.head] += n
	return c.blocks[c.head][off : off+n], where((c.head*c.block + off) / 8)
}

// sweep empties block i but for entries read since they came to it, which move to its front and
// must be read again to stay the next time. At most half of a block stays, so that sweeping ends.
func (c *cache) sweep(i int) {
	b, end, kept := c.blocks[i], c.sizes[i], 0
	for off := 0; off < end; {
		n := cacheSizeAt(b[off:])
		hash, here := binary.LittleEndian.Uint64(b[off:]), where((i*c.block+off)/8)
		if at, ok := c.index.get(hash); ok && at == here {
			if b[off+17]&bitRead != 0 && kept+n <= c.block/2 {
				b[off+17] &^= bitRead
				copy(b[kept:], b[off:off+n])
				c.index.put(hash, where((i*c.block+kept)/8))
				kept += n
			} else {
				c.index.drop(hash)
			}
		}
		off += n
	}
	c.sizes[i] = kept
}
