package node

import "log/slog"

// Options is what Run needs beside the Config.
type Options struct {
	// Logger is required.
	Logger *slog.Logger
	// Version of the build, for status, gossip and the version command.
	Version string
	// Spans tells how many spans have ended, were exported, and could not be, since the start; may be nil.
	Spans func() (ended, exported, failed uint64)
	// Ready is called once, when the node first serves clients; may be nil.
	Ready func()
}
