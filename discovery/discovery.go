// Package discovery finds the seeds of a node: addresses where peers may be. It knows nothing of
// Kai, and what it finds is a hint: an address may be dead, or its own, or someone else's.
package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Peer is one place where a peer may be reached.
type Peer struct {
	// ID and Zone are what the source calls them (an instance id, an availability zone); often empty.
	ID, Zone string
	// Addr is ip:port; never a name.
	Addr string
}

// Finder asks a source for peers.
type Finder interface {
	// Peers returns all peers known to the source, each address once. What was found comes back
	// even if the error says that a part could not be asked. It blocks until the source has
	// answered, at most for the time the finder was made with, or until ctx ends. Safe for
	// concurrent use.
	Peers(ctx context.Context) ([]Peer, error)
}

// Resolver looks names up; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, addrs []*net.SRV, err error)
}

// LookupTimeout bounds one look-up. Resolvers hang for long when a node is cut off, just when
// it needs its other seeds most.
const LookupTimeout = 3 * time.Second

// Usage lists the forms Parse takes, for error messages and help texts.
const Usage = "static:host:port,… dns:name:port dns:_service._tcp.name file:path aws:tag=KEY=VALUE aws:asg=NAME gce:label=KEY=VALUE gce:group=NAME"

// Parse makes a finder of a specification: nothing (finds nobody), or any number of the forms of
// Usage, separated by spaces or ';', whose answers are joined. It does no I/O; files and names are
// looked up each time Peers is called. Errors say what would be right.
func Parse(spec string) (Finder, error) { return ParseWith(spec, net.DefaultResolver) }

// ParseWith is Parse with the resolver to use.
func ParseWith(spec string, r Resolver) (Finder, error) {
	var all many
	for _, one := range split(spec) {
		f, err := parseOne(one, lookup{r, LookupTimeout})
		if err != nil {
			return nil, fmt.Errorf("discovery %q: %w", one, err)
		}
		all = append(all, f)
	}
	return all, nil
}

func split(spec string) []string {
	return strings.FieldsFunc(spec, func(c rune) bool { return c == ';' || c == ' ' || c == '\t' || c == '\n' })
}

func parseOne(spec string, l lookup) (Finder, error) {
	scheme, rest, _ := strings.Cut(spec, ":")
	switch scheme {
	case "static":
		return parseStatic(rest, l)
	case "dns":
		return parseDNS(rest, l)
	case "aws":
		return parseAWS(rest)
	case "gce":
		return parseGCE(rest)
	case "file":
		if rest == "" {
			return nil, errors.New("names no file; write file:path, for example file:/etc/kai/seeds")
		}
		return file{rest, l}, nil
	}
	return nil, fmt.Errorf("unknown form; write one of: %s", Usage)
}

// many joins the answers of several finders.
type many []Finder

func (m many) Peers(ctx context.Context) ([]Peer, error) {
	var peers []Peer
	var errs []error
	seen := map[string]bool{}
	for _, f := range m {
		found, err := f.Peers(ctx)
		if err != nil {
			errs = append(errs, err)
		}
		for _, p := range found {
			if !seen[p.Addr] {
				seen[p.Addr] = true
				peers = append(peers, p)
			}
		}
	}
	return peers, errors.Join(errs...)
}
