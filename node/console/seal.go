package console

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// SealState is whether a node takes writes.
type SealState string

// A node is open; quiet: clients' writes are refused, what is on its way comes to its end; sealed for a last snapshot: what it holds does not
// change; or ended: its cluster goes on as another generation, elsewhere. Quiet does not outlast the process; all but ended can be taken back.
const (
	SealOpen  SealState = "open"
	SealQuiet SealState = "quiet"
	SealSet   SealState = "sealed"
	SealEnded SealState = "ended"
)

// Sealer is a Source that can be sealed: then the console answers
//
//	POST /api/seal?cluster=ID&state=STATE   Sealing, once the node is in that state
//	POST /api/settle?cluster=ID             Sealing, once what the node holds and what its peers hold is alike; it is quiet, as they are
//
// The POSTs are guarded as those of an Operator are.
type Sealer interface {
	// Seal has the node, which must be of that cluster, take no writes any more; or take them again.
	Seal(ctx context.Context, cluster string, state SealState) (Sealing, error)
	// Settle returns when this node's replicas have taken over what others hold newer, and all are alike.
	Settle(ctx context.Context, cluster string) (Sealing, error)
}

// Sealing says in which state a node is.
type Sealing struct {
	NodeID string    `json:"node_id"`
	State  SealState `json:"state"`
}

func sealing(mux *http.ServeMux, s Sealer) {
	mux.HandleFunc("POST /api/seal", action(func(w http.ResponseWriter, r *http.Request) {
		done, err := s.Seal(r.Context(), r.URL.Query().Get("cluster"), SealState(r.URL.Query().Get("state")))
		if err != nil {
			refuse(w, http.StatusConflict, err)
			return
		}
		answer(w, http.StatusOK, done)
	}))
	mux.HandleFunc("POST /api/settle", action(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(settleTimeout)) // who cannot do it keeps the server's
		ctx, cancel := context.WithTimeout(r.Context(), settleTimeout-5*time.Second)
		defer cancel()
		done, err := s.Settle(ctx, r.URL.Query().Get("cluster"))
		if err != nil {
			refuse(w, http.StatusConflict, err)
			return
		}
		answer(w, http.StatusOK, done)
	}))
}

// settleTimeout bounds one Settle: it may be asked for again.
const settleTimeout = 2 * time.Minute

// Settle waits until the node, which is quiet, holds what its peers hold.
func (c Client) Settle(ctx context.Context, cluster string) (Sealing, error) {
	var s Sealing
	err := c.ask(ctx, http.MethodPost, "/api/settle?"+url.Values{"cluster": {cluster}}.Encode(), &s)
	return s, err
}

// Seal has the node take no writes any more, or take them again. It is refused by nodes of other clusters.
func (c Client) Seal(ctx context.Context, cluster string, state SealState) (Sealing, error) {
	var s Sealing
	err := c.ask(ctx, http.MethodPost, "/api/seal?"+url.Values{"cluster": {cluster}, "state": {string(state)}}.Encode(), &s)
	return s, err
}
