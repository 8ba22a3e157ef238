package node

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"kai/discovery"
)

// Options is what Run needs beside the Config.
type Options struct {
	// Logger is required.
	Logger *slog.Logger
	// Version of the build, for status, gossip and the version command.
	Version string
	// Spans tells how many spans have ended, were exported, and could not be, since the start; may be nil.
	Spans func() (ended, exported, failed uint64)
	// Identified is called once, when the node knows who it is and has done nothing else yet; its error ends Run. May be nil.
	Identified func(Self) error
	// Ready is called once, when the node first serves clients; may be nil.
	Ready func()
}

// Self is who a node is, for whoever tells others of it.
type Self struct {
	// ID is the node's own, the same at each start on the same disk.
	ID, Cluster, Zone string
	// Place is where the cloud says that it is; zero if it was not asked.
	Place discovery.Place
	// Metrics are what /metrics serves; they may be asked for until Run has returned.
	Metrics prometheus.Gatherer
	// SyncsAside is true if no thread waits for the log's disk with KAI_DURABILITY=always.
	SyncsAside bool
}
