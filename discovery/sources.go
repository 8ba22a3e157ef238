package discovery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// static is a list given once.
type static struct {
	targets []target
	lookup  lookup
}

func parseStatic(list string, l lookup) (Finder, error) {
	s := static{lookup: l}
	for one := range strings.SplitSeq(list, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		host, port, err := hostPort(one)
		if err != nil {
			return nil, err
		}
		s.targets = append(s.targets, target{host, port})
	}
	if len(s.targets) == 0 {
		return nil, errors.New("names nobody; write static:host:port,host:port")
	}
	return s, nil
}

func (s static) Peers(ctx context.Context) ([]Peer, error) { return s.lookup.all(ctx, s.targets) }

// names is every address of one name (A and AAAA), such as a headless service.
type names struct {
	target target
	lookup lookup
}

func (n names) Peers(ctx context.Context) ([]Peer, error) {
	return n.lookup.host(ctx, n.target.host, n.target.port)
}

// service is every target of one SRV name.
type service struct {
	name   string
	lookup lookup
}

func (s service) Peers(ctx context.Context) ([]Peer, error) { return s.lookup.service(ctx, s.name) }

func parseDNS(rest string, l lookup) (Finder, error) {
	if strings.HasPrefix(rest, "_") {
		if strings.Contains(rest, ":") {
			return nil, errors.New("SRV records carry the port; write dns:_service._tcp.name without one")
		}
		return service{rest, l}, nil
	}
	host, port, err := hostPort(rest)
	if err != nil {
		return nil, err
	}
	return names{target{host, port}, l}, nil
}

// file is a list that someone else keeps, read anew each time.
type file struct {
	path   string
	lookup lookup
}

const (
	maxFileLine  = 4096
	maxFilePeers = 10000
)

// Peers reads one address a line; '#' starts a comment. A bad line is an error that names it; the
// good ones count all the same.
func (f file) Peers(ctx context.Context) ([]Peer, error) {
	r, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	defer r.Close() //nolint:errcheck // read only
	var targets []target
	var errs []error
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxFileLine)
	for number := 1; lines.Scan(); number++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		host, port, err := hostPort(line)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("discovery: %s:%d: %w", f.path, number, err))
		case len(targets) == maxFilePeers:
			return nil, fmt.Errorf("discovery: %s: more than %d addresses", f.path, maxFilePeers)
		default:
			targets = append(targets, target{host, port})
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("discovery: %s: %w", f.path, err))
	}
	peers, err := f.lookup.all(ctx, targets)
	return peers, errors.Join(append(errs, err)...)
}
