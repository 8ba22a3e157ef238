package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"go.opentelemetry.io/otel/propagation"
)

// ErrUnreachable means that no node answered at the address.
var ErrUnreachable = errors.New("no node answers")

// ErrRefused means that the node understood, and says why it will not.
var ErrRefused = errors.New("refused")

// Client asks the admin port of a node. The zero Client lacks an address.
type Client struct {
	// Addr is host:port.
	Addr string
	// HTTP may be nil: a client that uses no proxy and keeps no connection. Bound calls by their
	// context.
	HTTP *http.Client
}

// maxAnswer bounds what a Client reads: enough for thousands of nodes.
const maxAnswer = 16 << 20

// Status asks for the node's Status.
func (c Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.get(ctx, "/api/status", &s)
	return s, err
}

// Ready asks whether the node may take traffic. A node that answers "not ready" is no error.
func (c Client) Ready(ctx context.Context) (Readiness, error) {
	var r Readiness
	err := c.get(ctx, "/readyz", &r)
	return r, err
}

// Ring asks who holds how much.
func (c Client) Ring(ctx context.Context) (Ring, error) {
	var r Ring
	err := c.get(ctx, "/api/ring", &r)
	return r, err
}

// Plan asks what would move. Refusals are errors.
func (c Client) Plan(ctx context.Context, q PlanQuery) (Plan, error) {
	values := url.Values{"without": q.Without, "zone": q.Zones}
	if q.With > 0 {
		values.Set("with", strconv.Itoa(q.With))
	}
	if q.Weight != 0 {
		values.Set("weight", strconv.FormatFloat(q.Weight, 'f', -1, 64))
	}
	var p Plan
	err := c.get(ctx, "/api/plan?"+values.Encode(), &p)
	return p, err
}

// Drain asks how far the node is with handing over.
func (c Client) Drain(ctx context.Context) (Drain, error) {
	var d Drain
	err := c.get(ctx, "/api/drain", &d)
	return d, err
}

// SetDrain has the node hand over all it holds, or take partitions again. It is refused if the node there is not
// the named one; "" is any.
func (c Client) SetDrain(ctx context.Context, node string, on bool) (Drain, error) {
	var d Drain
	err := c.ask(ctx, http.MethodPost, "/api/drain?"+url.Values{"node": {node}, "undo": {strconv.FormatBool(!on)}}.Encode(), &d)
	return d, err
}

// Lost asks which partitions have lost their quorum.
func (c Client) Lost(ctx context.Context) (Recovery, error) {
	var r Recovery
	err := c.get(ctx, "/api/recover", &r)
	return r, err
}

// Recover has the node recover them; confirm is the cluster's name.
func (c Client) Recover(ctx context.Context, confirm string) (Recovery, error) {
	var r Recovery
	err := c.ask(ctx, http.MethodPost, "/api/recover?"+url.Values{"confirm": {confirm}}.Encode(), &r)
	return r, err
}

// Restore has the node take records, as AppendRecord wrote them, over newer ones if they are to be overwritten.
func (c Client) Restore(ctx context.Context, records []byte, overwrite bool) (Restoration, error) {
	var r Restoration
	err := c.send(ctx, http.MethodPost, "/api/restore?overwrite="+strconv.FormatBool(overwrite), bytes.NewReader(records), &r)
	return r, err
}

// get fills into from the JSON at path. Errors wrap ErrUnreachable if there was no answer at all.
func (c Client) get(ctx context.Context, path string, into any) error {
	return c.ask(ctx, http.MethodGet, path, into)
}

func (c Client) ask(ctx context.Context, method, path string, into any) error {
	return c.send(ctx, method, path, nil, into)
}

func (c Client) send(ctx context.Context, method, path string, body io.Reader, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.Addr+path, body)
	if err != nil {
		return fmt.Errorf("admin address %q: %w", c.Addr, err)
	}
	req.Header.Set("Accept", "application/json")
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
	if method != http.MethodGet {
		req.Header.Set(ActionHeader, "1")
	}
	client := c.HTTP
	if client == nil {
		client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%w at http://%s: %w", ErrUnreachable, c.Addr, errors.Unwrap(err))
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 400 && res.StatusCode < 500 {
		var r Refusal
		if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&r); err == nil && r.Error != "" {
			return fmt.Errorf("%w: %s", ErrRefused, r.Error)
		}
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusServiceUnavailable {
		return fmt.Errorf("http://%s%s answers %s: is this the admin port of a node?", c.Addr, path, res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("http://%s%s does not answer as a node does: %w", c.Addr, path, err)
	}
	return nil
}
