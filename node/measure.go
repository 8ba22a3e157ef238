package node

import (
	"io/fs"
	"path/filepath"
	"syscall"

	"kai/node/console"
)

// diskBytes is what the data directory takes: allocated blocks, because Badger's files have holes.
func (n *node) diskBytes() (total int64) {
	_ = filepath.WalkDir(n.cfg.DataDir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go while we look
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				total += st.Blocks * 512
			}
		}
		return nil
	})
	return total
}

// storeStatus is the store as people see it.
func (n *node) storeStatus() console.Store {
	s := n.store.Stats()
	st := console.Store{
		Durability: n.cfg.Durability.String(), CacheBytes: int64(n.cfg.CacheBytes), DiskBytes: n.diskBytes(),
		CacheHits: uint64(s.Hits), CacheMisses: uint64(s.Misses),
	}
	switch err := n.storeFault.Load(); {
	case err != nil:
		st.Fault = (*err).Error()
	case s.Full:
		st.Fault = "the disk is nearly full: writes are refused until there is space"
	}
	return st
}

// measureStore emits the store's counters.
func (n *node) measureStore(emit func(name string, v uint64)) {
	s := n.store.Stats()
	emit("store_puts", uint64(s.Puts))
	emit("store_refused", uint64(s.Refused))
	emit("store_batches", uint64(s.Batches))
	emit("store_syncs", uint64(s.Syncs))
	emit("store_sync_micros", uint64(s.SyncTime.Microseconds()))
	emit("store_log_bytes", uint64(s.LogBytes))
	emit("store_applied", uint64(s.Applied))
	emit("store_stalls", uint64(s.Stalls))
	emit("store_cache_hits", uint64(s.Hits))
	emit("store_cache_misses", uint64(s.Misses))
	emit("store_corrupt", uint64(s.Corrupt))
	emit("store_overlay_bytes", uint64(s.OverlayBytes))
	emit("store_segments", uint64(s.Segments))
}
