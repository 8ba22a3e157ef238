//go:build race

package memcache

const raced = true
