package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Source is what the console shows; the assembly of the node meets it. All methods are called
// concurrently, answer from memory, and do not block.
type Source interface {
	// Status may leave Ready and Reasons empty.
	Status() Status
	// Ready says whether the node may take traffic, and if not, why; one short sentence a reason.
	Ready() (ready bool, reasons []string)
	// Settings are the settings in effect, secrets masked.
	Settings() []Setting
	// Metrics answers requests for /metrics, in the format they ask for.
	Metrics() http.Handler
}

// Options configures a Server; all fields are required.
type Options struct {
	// Listener takes connections; Run closes it.
	Listener net.Listener
	Source   Source
	Logger   *slog.Logger
}

// Server answers on the admin port.
type Server struct {
	o    Options
	http http.Server
}

// Limits of a request. They keep forgotten or hostile clients from holding connections for ever;
// honest answers are small and come from memory.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	stopTimeout   = 3 * time.Second
	maxHeader     = 16 << 10
)

// New makes a server; it starts nothing.
func New(o Options) *Server {
	return &Server{o: o, http: http.Server{
		Handler:           Handler(o.Source),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}}
}

// Run serves until ctx ends, then lets requests under way finish for at most 3 s, closes what is
// left, and returns nil. It returns an error if the listener fails. Call it once.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.o.Listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("console: serve: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := s.http.Shutdown(stop); err != nil {
		s.o.Logger.Debug("console: requests cut off", "error", err)
		_ = s.http.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("console: serve: %w", err)
	}
	return nil
}
