//go:build !race

package memcache

// raced: the race detector is on, which multiplies memory.
const raced = false
