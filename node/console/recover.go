package console

import (
	"errors"
	"net/http"
)

// Recoverer is a Source that can recover partitions: then the console answers
//
//	GET  /api/recover  Recovery: what is lost, and what would become of it
//	POST /api/recover  Recovery, with what was done; confirm=NAME, the cluster's name
//
// The POST is guarded as those of an Operator are.
type Recoverer interface {
	// Lost lists the partitions that have lost their quorum, and changes nothing.
	Lost() Recovery
	// Recover makes new generations of them. It may take half a minute; what is left then is listed as not done.
	Recover() (Recovery, error)
}

// Recovery is the partitions that have lost their quorum.
type Recovery struct {
	NodeID  string `json:"node_id"`
	Cluster string `json:"cluster"`
	// Refused says why this node recovers nothing now.
	Refused    string          `json:"refused,omitempty"`
	Partitions []LostPartition `json:"partitions"`
}

// LostPartition is a partition without a quorum for good.
type LostPartition struct {
	Partition  int    `json:"partition"`
	Epoch      uint32 `json:"epoch"`
	Generation int    `json:"generation"`
	// Members and Next are those of its configuration.
	Members []string `json:"members"`
	Next    []string `json:"next,omitempty"`
	// Survivors hold it and are alive; Gone have been dead for long enough; Awaited are away, but not for long.
	Survivors []string `json:"survivors,omitempty"`
	Gone      []string `json:"gone,omitempty"`
	Awaited   []string `json:"awaited,omitempty"`
	// New is who holds it, once it is recovered.
	New []string `json:"new,omitempty"`
	// Loss says what may be lost, in words.
	Loss string `json:"loss"`
	// Refused says why it is not recovered now.
	Refused string `json:"refused,omitempty"`
	// Recovered: it was, just now; Epoch and Generation are the new ones.
	Recovered bool `json:"recovered,omitempty"`
}

func recoverLost(mux *http.ServeMux, rec Recoverer) {
	mux.HandleFunc("GET /api/recover", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, rec.Lost()) })
	mux.HandleFunc("POST /api/recover", action(func(w http.ResponseWriter, r *http.Request) {
		if lost := rec.Lost(); r.FormValue("confirm") != lost.Cluster || lost.Cluster == "" {
			refuse(w, http.StatusConflict, errors.New("not confirmed: this is cluster "+lost.Cluster))
			return
		}
		done, err := rec.Recover()
		if err != nil {
			refuse(w, http.StatusConflict, err)
			return
		}
		answer(w, http.StatusOK, done)
	}))
}
