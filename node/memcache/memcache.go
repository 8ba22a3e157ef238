// Package memcache speaks the memcache text protocol (memcached's doc/protocol.txt) over a Store.
//
// A Server accepts connections; each connection is one goroutine that reads what is there, parses
// every complete request of it into one batch, executes the batch at once, and answers with one
// write. DESIGN.md, beside this file, walks through the loop and lists where Kai, a store, means to
// differ from memcached, a cache.
package memcache

import (
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"kai/node/record"
)

// Store executes operations; met by the quorum coordinator.
type Store interface {
	// Session opens a session for one connection. It does not block. A connection opens its session
	// with its first operation, so connections that never ask for anything cost the Store nothing.
	Session() Session
}

// Session belongs to one connection and is used by one goroutine at a time.
type Session interface {
	// Execute runs ops and fills results, which has the same length. It blocks until all of them are
	// decided, at most the request timeout. Operations on different keys may take effect in any
	// order; operations on one key take effect in the order of ops.
	//
	// Op.Key and Op.Value stay valid until Execute returns, and not longer. Result.Value must stay
	// valid until the next Execute or Close. results arrive zeroed.
	//
	// It returns how long it took, which is what latencies count.
	//
	// Execute without ops returns at once: it tells that the values of the last results are done
	// with. A connection calls it so before it waits for its client, if those values were large.
	Execute(ops []record.Op, results []record.Result) time.Duration
	// Close releases what the session holds.
	Close()
}

// Admin answers the commands that do not act on one key.
type Admin interface {
	// Stats emits the store's and the node's statistics. A name that the server has a value for
	// itself (curr_items, bytes, evictions, limit_maxbytes, …) replaces the server's. A name or value
	// holds no white space but single spaces.
	Stats(emit func(name, value string))
	// FlushAll makes all present records expire after delay. It is called only with
	// Options.FlushAll; an error becomes a SERVER_ERROR.
	FlushAll(delay time.Duration) error
}

// Options configures a Server. Store is required; every other field has a usable zero value.
type Options struct {
	Store Store
	// Admin may be nil: no further statistics, and flush_all fails.
	Admin Admin
	// Version is what version and stats tell. It must begin with three numbers, of which the first is
	// not 0, or libmemcached refuses to talk on; "" means "1.6.27-kai".
	Version string
	// MaxValueBytes bounds a value; 0 means 1 MiB. Larger values are read and thrown away.
	MaxValueBytes int
	// MaxConnections bounds open connections; 0 means 4096. One more is told so and closed.
	MaxConnections int
	// Expiration allows an exptime other than 0 (KAI_EXPIRATION).
	Expiration bool
	// FlushAll allows flush_all (KAI_FLUSH_ALL).
	FlushAll bool
	// DrainTimeout bounds how long Serve waits, once its context has ended, for clients that do not
	// take their answers; 0 means 5 s. It should exceed the Store's request timeout, or answers to
	// requests in flight may come too late to be sent.
	DrainTimeout time.Duration
	// Logger may be nil: no logs. Keys and values are never logged.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Version == "" {
		o.Version = "1.6.27-kai"
	}
	if o.MaxValueBytes <= 0 {
		o.MaxValueBytes = 1 << 20
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 4096
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Server serves the memcache text protocol. Make it with NewServer, run it with Serve.
type Server struct {
	opt     Options
	started time.Time
	buffers bufferPool
	totals  []shard // counters, sharded by connection
	// resetAt is what the totals were at the last stats reset.
	resetAt [numCounters]atomic.Uint64

	mu     sync.Mutex
	conns  map[*conn]struct{}
	serial int // numbers connections, to spread them over the shards
}

// NewServer makes a server; it starts nothing.
func NewServer(o Options) *Server {
	o = o.withDefaults()
	s := &Server{
		opt:     o,
		started: o.Now(),
		totals:  make([]shard, 2*runtime.GOMAXPROCS(0)),
		conns:   make(map[*conn]struct{}),
	}
	s.buffers.max = max(maxLine, maxShortLine+o.MaxValueBytes+2)
	return s
}
