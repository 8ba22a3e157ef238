package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// settings are the name=value of a specification, separated by commas; %XX stands for bytes that would end one.
func settings(rest string, known ...string) (map[string]string, error) {
	set := map[string]string{}
	for one := range strings.SplitSeq(rest, ",") {
		if one == "" {
			continue
		}
		name, value, ok := strings.Cut(one, "=")
		decoded, err := url.PathUnescape(value)
		switch {
		case !ok || err != nil || decoded == "":
			return nil, fmt.Errorf("%q is not name=value", one)
		case set[name] != "":
			return nil, fmt.Errorf("%q is there twice", name)
		}
		good := false
		for _, k := range known {
			good = good || k == name
		}
		if !good {
			return nil, fmt.Errorf("unknown %q; known are: %s", name, strings.Join(known, ", "))
		}
		set[name] = decoded
	}
	return set, nil
}

// defaultPort is KAI_GOSSIP_LISTEN's.
const defaultPort = 11213

func portOf(set map[string]string) (uint16, error) {
	if set["port"] == "" {
		return defaultPort, nil
	}
	n, err := strconv.ParseUint(set["port"], 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port=%s: the port must be a number from 1 to 65535", set["port"])
	}
	return uint16(n), nil
}

// instance is a machine as a cloud's list has it.
type instance struct {
	id, zone string
	addrs    []string // the first that is an address counts
}

// peersOf are the instances that have an address.
func peersOf(all []instance, port uint16) (peers []Peer) {
	for _, i := range all {
		for _, s := range i.addrs {
			if a, err := netip.ParseAddr(s); err == nil {
				peers = append(peers, Peer{ID: i.id, Zone: i.zone, Addr: netip.AddrPortFrom(a.Unmap(), port).String()})
				break
			}
		}
	}
	return peers
}

const (
	// cloudTries is how often a page is asked for that was throttled or failed, with waits that double between.
	cloudTries = 5
	cloudWait  = 200 * time.Millisecond
	// cloudCall bounds one request, maxAnswer one answer, maxPages their number.
	cloudCall = 5 * time.Second
	maxAnswer = 16 << 20
	maxPages  = 1000
)

// errTryAgain marks answers that another try may change.
var errTryAgain = errors.New("try again")

// page asks until there is an answer, or an error that another try would not change.
func page(ctx context.Context, ask func(ctx context.Context) error) error {
	wait := cloudWait
	for try := 1; ; try++ {
		one, cancel := context.WithTimeout(ctx, cloudCall)
		err := ask(one)
		cancel()
		if err == nil || !errors.Is(err, errTryAgain) || try == cloudTries {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, after: %w", ctx.Err(), err)
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// fetch sends a request and reads the answer; 429 and 5xx, and what never arrived, are worth another try.
func fetch(client interface {
	Do(*http.Request) (*http.Response, error)
}, req *http.Request) (code int, body []byte, err error) {
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errTryAgain, err)
	}
	defer res.Body.Close() //nolint:errcheck // read only
	if body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer)); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errTryAgain, err)
	}
	return res.StatusCode, body, nil
}

// transient tells codes that another try may change.
func transient(code int) bool { return code == http.StatusTooManyRequests || code >= 500 }
