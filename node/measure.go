package node

import (
	"kai/node/console"
)

// storeStatus is the store as people see it.
func (n *node) storeStatus() console.Store {
	s := n.store.Stats()
	st := console.Store{
		Durability: n.cfg.Durability.String(), CacheBytes: int64(n.cfg.CacheBytes),
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
