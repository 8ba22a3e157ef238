package console

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/pprof"
	"strings"

	"go.opentelemetry.io/otel/propagation"
)

//go:embed page
var pageFiles embed.FS

// Handler answers the admin port's requests from source:
//
//	GET /livez       200 while the process answers
//	GET /readyz      200 when the node may take traffic, else 503 with the reasons
//	GET /api/status  Status
//	GET /api/config  a list of Setting
//	GET /metrics     Prometheus' text format, or OpenMetrics
//	GET /debug/pprof profiles of Go
//	GET /            the page
//
// These read only. If source is an Operator, a Recoverer, a Sealer, a Restorer or a Tracer, too, it answers more, see there.
func Handler(source Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { readyz(w, r, source) })
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, _ *http.Request) {
		status := source.Status()
		status.Ready, status.Reasons = source.Ready()
		answer(w, http.StatusOK, status)
	})
	mux.HandleFunc("GET /api/config", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, source.Settings())
	})
	mux.Handle("GET /metrics", source.Metrics())
	for path, profile := range map[string]http.HandlerFunc{"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace} {
		mux.HandleFunc("GET /debug/pprof/"+path, profile)
	}
	if t, ok := source.(Tracer); ok {
		trace(mux, t)
	}
	if op, ok := source.(Operator); ok {
		operate(mux, op)
	}
	if rec, ok := source.(Recoverer); ok {
		recoverLost(mux, rec)
	}
	if s, ok := source.(Sealer); ok {
		sealing(mux, s)
	}
	if to, ok := source.(Restorer); ok {
		restore(mux, to)
	}
	if page, err := fs.Sub(pageFiles, "page"); err == nil { // "page" is a valid path, so it is nil
		mux.Handle("GET /", http.FileServerFS(page))
	}
	return secure(mux)
}

// secure has what a request asks for be part of the trace that it names, and sets the headers that keep a browser from doing more than the page needs. The page loads
// its own script and style and asks its own API, nothing else.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r.WithContext(propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))))
	})
}

func readyz(w http.ResponseWriter, r *http.Request, source Source) {
	ready, reasons := source.Ready()
	code := http.StatusOK
	if !ready {
		code = http.StatusServiceUnavailable
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		answer(w, code, Readiness{ready, reasons})
		return
	}
	body := "ready\n"
	if !ready {
		body = "not ready\n" + strings.Join(reasons, "\n") + "\n"
	}
	text(w, code, body)
}

func text(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprint(w, body) // a client that went away is none of our business
}

func answer(w http.ResponseWriter, code int, body any) {
	b, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		text(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n'))
}
