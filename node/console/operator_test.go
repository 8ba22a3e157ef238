package console

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// operator is a fake that can do all.
type operator struct {
	fake
	drain     Drain
	cannot    error
	query     PlanQuery
	lost      Recovery
	recovered int
}

func (o *operator) Ring() Ring {
	return Ring{NodeID: o.drain.NodeID, Nodes: []RingNode{{ID: "aa", Share: 1}}}
}
func (o *operator) Drain() Drain { return o.drain }
func (o *operator) Plan(q PlanQuery) (Plan, error) {
	if o.query = q; len(q.Without) > 0 && q.Without[0] == "nobody" {
		return Plan{}, errors.New("no node is called nobody")
	}
	return Plan{NodeID: "aa", Replicas: 7}, nil
}
func (o *operator) SetDrain(on bool) error {
	if o.cannot == nil {
		o.drain.Asked = on
	}
	return o.cannot
}
func (o *operator) Lost() Recovery { return o.lost }
func (o *operator) Recover() (Recovery, error) {
	o.recovered++
	return o.lost, o.cannot
}

func TestOperator(t *testing.T) {
	o := &operator{drain: Drain{NodeID: "aa", Partitions: 3}}
	addr, stop := serve(t, o)
	defer func() { _ = stop() }()
	c := Client{Addr: addr}
	if r, err := c.Ring(t.Context()); err != nil || len(r.Nodes) != 1 || r.NodeID != "aa" {
		t.Errorf("%+v, %v", r, err)
	}
	want := PlanQuery{Without: []string{"a b", "&c"}, With: 3, Zones: []string{"z1", "z2"}, Weight: 2.5}
	if p, err := c.Plan(t.Context(), want); err != nil || p.Replicas != 7 || !reflect.DeepEqual(o.query, want) {
		t.Errorf("%+v, %v; asked %+v", p, err, o.query)
	}
	if _, err := c.Plan(t.Context(), PlanQuery{Without: []string{"nobody"}}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "nobody") {
		t.Error(err)
	}
	if _, err := c.Plan(t.Context(), PlanQuery{With: MaxWith + 1}); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if d, err := c.SetDrain(t.Context(), "aa", true); err != nil || !d.Asked || !o.drain.Asked {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := c.Drain(t.Context()); err != nil || !d.Asked || d.Partitions != 3 {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := c.SetDrain(t.Context(), "bb", false); !errors.Is(err, ErrRefused) || !o.drain.Asked {
		t.Error("another node's drain was taken back", err)
	}
	if d, err := c.SetDrain(t.Context(), "", false); err != nil || d.Asked {
		t.Errorf("%+v, %v", d, err)
	}
	o.cannot = errors.New("2 other nodes for 3 replicas")
	if _, err := c.SetDrain(t.Context(), "", true); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "2 other nodes") {
		t.Error(err)
	}
}

func TestRecoverWantsTheClustersName(t *testing.T) {
	o := &operator{lost: Recovery{NodeID: "aa", Cluster: "kai", Partitions: []LostPartition{{Partition: 5}}}}
	addr, stop := serve(t, o)
	defer func() { _ = stop() }()
	c := Client{Addr: addr}
	if r, err := c.Lost(t.Context()); err != nil || len(r.Partitions) != 1 || o.recovered != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, name := range []string{"", "Kai", "kai2", "yes"} {
		if _, err := c.Recover(t.Context(), name); !errors.Is(err, ErrRefused) || o.recovered != 0 {
			t.Errorf("%q confirms: %v", name, err)
		}
	}
	if r, err := c.Recover(t.Context(), "kai"); err != nil || len(r.Partitions) != 1 || o.recovered != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	o.cannot = errors.New("this node knows too little")
	if _, err := c.Recover(t.Context(), "kai"); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

// No page may change anything: neither one of another site, which cannot set the header, nor one whose name was
// made to point here, whose browser says Origin.
func TestPagesCannotAct(t *testing.T) {
	o := &operator{lost: Recovery{Cluster: "kai"}}
	h := Handler(o)
	for _, path := range []string{"/api/drain", "/api/recover?confirm=kai"} {
		for name, c := range map[string]struct {
			method string
			header map[string]string
			code   int
		}{
			"a form":             {"POST", nil, 403},
			"a page of its own":  {"POST", map[string]string{ActionHeader: "1", "Origin": "http://kai.example"}, 403},
			"a newer browser":    {"POST", map[string]string{ActionHeader: "1", "Sec-Fetch-Site": "same-origin"}, 403},
			"a link":             {"GET", map[string]string{ActionHeader: "1"}, 200},
			"another method":     {"PUT", map[string]string{ActionHeader: "1"}, 405},
			"asking for consent": {"OPTIONS", map[string]string{"Origin": "http://kai.example", "Access-Control-Request-Headers": ActionHeader}, 405},
		} {
			r := httptest.NewRequest(c.method, path, nil)
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.code || w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s of %s: %d %v", name, path, w.Code, w.Header())
			}
			if o.drain.Asked || o.recovered != 0 {
				t.Fatalf("%s of %s acted", name, path)
			}
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/api/drain", nil)
	r.Header.Set(ActionHeader, "1")
	if h.ServeHTTP(httptest.NewRecorder(), r); !o.drain.Asked {
		t.Error("the command cannot act either")
	}
	// A Source that is no Operator has none of it.
	w := httptest.NewRecorder()
	if Handler(&fake{}).ServeHTTP(w, r); w.Code != 405 && w.Code != 404 {
		t.Error(w.Code)
	}
}
