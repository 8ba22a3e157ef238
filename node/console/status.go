// Package console is the operator's side of a node, off the data path: health, status, settings,
// metrics, and a page that shows them. It imports nothing of Kai; the assembly meets its Source.
package console

import "time"

// Status is a node's picture of itself and its cluster: what /api/status answers, and what `kai
// status` prints. Fields are added, never renamed.
type Status struct {
	// NodeID is the node that answers; Nodes says more of it.
	NodeID  string    `json:"node_id"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Ready and Reasons are as in /readyz; the server fills them.
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"`
	// Draining: the node hands over all it holds.
	Draining bool    `json:"draining,omitempty"`
	Cluster  Cluster `json:"cluster"`
	// Nodes are all known nodes, sorted by id.
	Nodes []Node `json:"nodes"`
	// UnderReplicated counts the partitions with fewer replicas than N; Reason says why.
	UnderReplicated UnderReplicated `json:"under_replicated"`
	// Lost counts the partitions that have lost their quorum for good: see Recovery.
	Lost int `json:"lost,omitempty"`
	// Recoveries tell of those that had, and were recovered.
	Recoveries Recoveries `json:"recoveries"`
	// Moving counts the partitions on their way to other nodes.
	Moving int `json:"moving"`
	// Transfer says how they get on.
	Transfer Transfer `json:"transfer"`
	Store    Store    `json:"store"`
	// Backup is nil if no snapshots are taken.
	Backup *Backup `json:"backup,omitempty"`
	// Links are the connections to other nodes, sorted by node.
	Links []Link `json:"links,omitempty"`
}

// Backup says how the snapshots get on.
type Backup struct {
	URL string `json:"url"`
	// Newest is the cut of the newest complete snapshot that this node knows of.
	Newest *time.Time `json:"newest,omitempty"`
	// Failures counts what went wrong since this node started, LastError is the last of it, empty once something went well.
	Failures  uint64 `json:"failures"`
	LastError string `json:"last_error,omitempty"`
}

// Cluster is what all nodes of a cluster agree on since its founding.
type Cluster struct {
	// ID is empty before the founding.
	ID         string `json:"id"`
	Name       string `json:"name"`
	Generation uint32 `json:"generation"`
	// Founding says how far the founding is, in words: "founded", "waiting for 3 nodes, 2 are here".
	Founding   string `json:"founding"`
	Quorum     string `json:"quorum"` // N:R:W
	Partitions int    `json:"partitions"`
	VNodes     int    `json:"vnodes"`
}

// Node is one node of the cluster, as the answering node knows it.
type Node struct {
	ID         string `json:"id"`
	Slot       int    `json:"slot"`
	Zone       string `json:"zone"`
	Alive      bool   `json:"alive"`
	Draining   bool   `json:"draining,omitempty"`
	Version    string `json:"version"`
	PeerAddr   string `json:"peer_addr"`
	GossipAddr string `json:"gossip_addr"`
	AdminAddr  string `json:"admin_addr"`
	// Boot counts the starts of the node's data directory.
	Boot uint64 `json:"boot"`
	// Partitions counts those the node holds a replica of; Favoured those that favour it as
	// coordinator.
	Partitions int `json:"partitions"`
	Favoured   int `json:"favoured"`
}

// UnderReplicated counts partitions that lack replicas.
type UnderReplicated struct {
	Partitions int    `json:"partitions"`
	Reason     string `json:"reason,omitempty"`
}

// Recoveries are the partitions that were recovered: the highest generation of any, and how many.
type Recoveries struct {
	Generation int `json:"generation"`
	Partitions int `json:"partitions"`
}

// Store is what the answering node keeps.
type Store struct {
	Durability  string `json:"durability"`
	DiskBytes   int64  `json:"disk_bytes"`
	CacheBytes  int64  `json:"cache_bytes"`
	CacheHits   uint64 `json:"cache_hits"`
	CacheMisses uint64 `json:"cache_misses"`
	// Fault is why the node does not vote any more; empty when all is well.
	Fault string `json:"fault,omitempty"`
}

// Link is the answering node's connection to one other node.
type Link struct {
	Node string `json:"node"`
	Addr string `json:"addr"`
	Up   bool   `json:"up"`
	// Detail says what is wrong with a link that is down.
	Detail string `json:"detail,omitempty"`
}

// Setting is one setting in effect; secrets are masked.
type Setting struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Source  string `json:"source"`
	Default string `json:"default"`
	Meaning string `json:"meaning"`
}

// Readiness is what /readyz answers when JSON is asked for.
type Readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"`
}
