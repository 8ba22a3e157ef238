package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// lookup turns names into addresses in bounded time.
type lookup struct {
	resolver Resolver
	timeout  time.Duration
}

// hostPort checks host:port without looking the host up.
func hostPort(s string) (host string, port uint16, err error) {
	host, number, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return "", 0, fmt.Errorf("%q is not host:port; write for example 10.0.0.7:11213, [fd00::7]:11213 or kai-1.example:11213", s)
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q: the port must be a number from 1 to 65535", s)
	}
	return host, uint16(n), nil
}

// host returns all addresses of a name; an address stands for itself.
func (l lookup) host(ctx context.Context, host string, port uint16) ([]Peer, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []Peer{{Addr: netip.AddrPortFrom(a.Unmap(), port).String()}}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	found, err := l.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("discovery: look up %s: %w", host, err)
	}
	peers := make([]Peer, len(found))
	for i, a := range found {
		peers[i].Addr = netip.AddrPortFrom(a.Unmap(), port).String()
	}
	return peers, nil
}

// service returns the addresses of all targets of an SRV name.
func (l lookup) service(ctx context.Context, name string) ([]Peer, error) {
	bounded, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	_, targets, err := l.resolver.LookupSRV(bounded, "", "", name)
	if err != nil {
		return nil, fmt.Errorf("discovery: look up SRV %s: %w", name, err)
	}
	hosts := make([]target, len(targets))
	for i, t := range targets {
		hosts[i] = target{strings.TrimSuffix(t.Target, "."), t.Port}
	}
	return l.all(ctx, hosts)
}

type target struct {
	host string
	port uint16
}

// lookupsAtOnce bounds the look-ups of one finder.
const lookupsAtOnce = 8

// all looks targets up together, so that a name that hangs costs one timeout, not one for each.
func (l lookup) all(ctx context.Context, targets []target) ([]Peer, error) {
	found, errs := make([][]Peer, len(targets)), make([]error, len(targets))
	var wg sync.WaitGroup
	slots := make(chan struct{}, lookupsAtOnce)
	for i, t := range targets {
		slots <- struct{}{}
		wg.Go(func() {
			found[i], errs[i] = l.host(ctx, t.host, t.port)
			<-slots
		})
	}
	wg.Wait()
	var peers []Peer
	for _, f := range found {
		peers = append(peers, f...)
	}
	return peers, errors.Join(errs...)
}
