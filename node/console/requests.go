package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Request is one request of a client that was kept, because it was slow, failed, found replicas that differ, or left one behind, or by chance: what /api/requests answers with.
type Request struct {
	TraceID string    `json:"trace_id"`
	Began   time.Time `json:"began"`
	Took    float64   `json:"took_seconds"`
	Command string    `json:"command"`
	Outcome string    `json:"outcome"`
	Detail  string    `json:"detail,omitempty"`
	// Classes say why it was kept: slow, failed, diverged, hinted, sampled.
	Classes   []string `json:"classes"`
	Partition int      `json:"partition"`
	// KeyHash is the same for the same key, until the node starts again.
	KeyHash string `json:"key_hash"`
	// Batch is how many commands the client had sent at once: all are answered when the last of them is decided.
	Batch int `json:"batch,omitempty"`
	// Forwarded: another node asked this one to run it; its own part has the same trace.
	Forwarded bool          `json:"forwarded,omitempty"`
	Steps     []RequestStep `json:"steps"`
}

// RequestStep is one message to one replica. Times are seconds since the request began.
type RequestStep struct {
	Node    string  `json:"node"`
	Addr    string  `json:"addr,omitempty"`
	Message string  `json:"message"`
	Sent    float64 `json:"sent_seconds"`
	// Answered is missing if the request ended without its answer.
	Answered *float64 `json:"answered_seconds,omitempty"`
	Status   string   `json:"status,omitempty"`
	Ballot   string   `json:"ballot,omitempty"`
	// Stale: another replica has told a newer state.
	Stale bool `json:"stale,omitempty"`
	// Digest: it was asked for the ballot alone.
	Digest bool `json:"digest,omitempty"`
	// Queue and Store are the replica's own account of the message, which may have been about several keys.
	Queue float64 `json:"queue_seconds"`
	Store float64 `json:"store_seconds"`
}

// Tracer is a Source that knows of requests.
type Tracer interface {
	// Requests are at most limit of a class, the newest first; an error says that there is no such class.
	Requests(class string, limit int) ([]Request, error)
}

// maxRequests bounds an answer.
const maxRequests = 1000

// trace answers GET /api/requests?class=slow&limit=20.
func trace(mux *http.ServeMux, source Tracer) {
	mux.HandleFunc("GET /api/requests", func(w http.ResponseWriter, r *http.Request) {
		limit := 20
		if text := r.FormValue("limit"); text != "" {
			var err error
			if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxRequests {
				refuse(w, http.StatusBadRequest, fmt.Errorf("limit is not a number from 1 to %d", maxRequests))
				return
			}
		}
		all, err := source.Requests(r.FormValue("class"), limit)
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		if all == nil {
			all = []Request{}
		}
		answer(w, http.StatusOK, all)
	})
}

// Requests asks for the newest requests of a class. Refusals are errors.
func (c Client) Requests(ctx context.Context, class string, limit int) ([]Request, error) {
	var all []Request
	err := c.get(ctx, "/api/requests?"+url.Values{"class": {class}, "limit": {strconv.Itoa(limit)}}.Encode(), &all)
	return all, err
}
