package console

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
)

// Operator is a Source that can do more: then the console answers
//
//	GET  /api/ring   Ring
//	GET  /api/plan   Plan; without=NODE (any number), with=3, zone=Z (any number), weight=2
//	GET  /api/drain  Drain
//	POST /api/drain  Drain, after it was asked for; node=ID refuses if this is another node, undo=true takes it back
//
// What changes something wants a POST with the header ActionHeader and without one that browsers add: no page of
// whatever site can send that. Who may reach the port may do it.
type Operator interface {
	// Ring and Drain answer from memory, but Ring may wait a moment for what other nodes tell.
	Ring() Ring
	Drain() Drain
	// Plan refuses what it does not understand.
	Plan(PlanQuery) (Plan, error)
	// SetDrain asks for a drain, or takes it back; an error says why not.
	SetDrain(on bool) error
}

// ActionHeader must be there, whatever its value, in a request that changes something.
const ActionHeader = "Kai-Action"

// errNoPage refuses a request that a page in a browser may have sent.
var errNoPage = errors.New("requests that change something need the header " + ActionHeader + ", and must not come from a page: use the kai command")

func operate(mux *http.ServeMux, op Operator) {
	mux.HandleFunc("GET /api/ring", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, op.Ring()) })
	mux.HandleFunc("GET /api/plan", func(w http.ResponseWriter, r *http.Request) {
		q, err := planQuery(r)
		if err == nil {
			var p Plan
			if p, err = op.Plan(q); err == nil {
				answer(w, http.StatusOK, p)
				return
			}
		}
		refuse(w, http.StatusBadRequest, err)
	})
	mux.HandleFunc("GET /api/drain", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, op.Drain()) })
	mux.HandleFunc("POST /api/drain", action(func(w http.ResponseWriter, r *http.Request) {
		if want := r.FormValue("node"); want != "" && want != op.Drain().NodeID {
			refuse(w, http.StatusConflict, errors.New("this is node "+op.Drain().NodeID+", not "+want))
			return
		}
		if err := op.SetDrain(r.FormValue("undo") != "true"); err != nil {
			refuse(w, http.StatusConflict, err)
			return
		}
		answer(w, http.StatusOK, op.Drain())
	}))
}

// action keeps pages out. A page of another site cannot send a header of its own without being allowed, and nobody
// is; one that has its name point here (DNS rebinding) can, but its browser says where it comes from.
func action(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		if h.Get(ActionHeader) == "" || h.Get("Origin") != "" || h.Get("Sec-Fetch-Site") != "" {
			refuse(w, http.StatusForbidden, errNoPage)
			return
		}
		next(w, r)
	}
}

// Refusal is what a request that was refused is answered with.
type Refusal struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, code int, err error) { answer(w, code, Refusal{err.Error()}) }

func planQuery(r *http.Request) (q PlanQuery, err error) {
	values := r.URL.Query()
	q.Without, q.Zones = values["without"], values["zone"]
	if s := values.Get("with"); s != "" {
		if q.With, err = strconv.Atoi(s); err != nil || q.With < 0 || q.With > MaxWith {
			return q, errors.New("with: write a number from 0 to " + strconv.Itoa(MaxWith))
		}
	}
	if s := strings.TrimSpace(values.Get("weight")); s != "" {
		if q.Weight, err = strconv.ParseFloat(s, 64); err != nil {
			return q, errors.New("weight: write a number, for example 2")
		}
	}
	return q, nil
}
