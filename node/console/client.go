package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// ErrUnreachable means that no node answered at the address.
var ErrUnreachable = errors.New("no node answers")

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

// get fills into from the JSON at path. Errors wrap ErrUnreachable if there was no answer at all.
func (c Client) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Addr+path, nil)
	if err != nil {
		return fmt.Errorf("admin address %q: %w", c.Addr, err)
	}
	req.Header.Set("Accept", "application/json")
	client := c.HTTP
	if client == nil {
		client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%w at http://%s: %w", ErrUnreachable, c.Addr, errors.Unwrap(err))
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusServiceUnavailable {
		return fmt.Errorf("http://%s%s answers %s: is this the admin port of a node?", c.Addr, path, res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("http://%s%s does not answer as a node does: %w", c.Addr, path, err)
	}
	return nil
}
