package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// ErrNoAdvertise means that a node listens on all interfaces, and none of them has an address that
// is clearly the one for its peers.
var ErrNoAdvertise = errors.New("KAI_ADVERTISE is empty, the node listens on all interfaces, and none has a private address; set KAI_ADVERTISE to the host under which other nodes reach this one")

// deriveAdvertise takes the host of the peer or gossip listener, if one names an interface.
func (c *Config) deriveAdvertise() {
	for _, l := range []ListenAddr{c.PeerListen, c.GossipListen} {
		if c.Advertise == "" && isSpecific(l.IP()) {
			c.Advertise, c.advertiseResolved = l.IP().String(), true
		}
	}
}

// ResolveAdvertise fills Advertise, if Load could not, with the first private address of
// interfaces, IPv4 before IPv6; see InterfaceAddrs. The error is ErrNoAdvertise.
func (c Config) ResolveAdvertise(interfaces []netip.Addr) (Config, error) {
	if c.Advertise != "" {
		return c, nil
	}
	v4Only := c.PeerListen.IP().Is4() || c.GossipListen.IP().Is4()
	for _, wantV4 := range []bool{true, false} {
		for _, ip := range interfaces {
			ip = ip.Unmap()
			if ip.Is4() != wantV4 || !ip.IsPrivate() || ip.Is6() && v4Only {
				continue
			}
			c.Advertise, c.advertiseResolved = ip.String(), true
			return c, nil
		}
	}
	return c, ErrNoAdvertise
}

// InterfaceAddrs are the addresses of this machine's interfaces that are up, in their order.
func InterfaceAddrs() ([]netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var all []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away since it was listed
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				all = append(all, p.Addr())
			}
		}
	}
	return all, nil
}

// PeerAddr, GossipAddr and AdminAddr are host:port as other nodes reach the listener.
func (c Config) PeerAddr() string { return c.advertised(c.PeerListen) }

// GossipAddr is described at PeerAddr.
func (c Config) GossipAddr() string { return c.advertised(c.GossipListen) }

// AdminAddr is described at PeerAddr; an admin listener on loopback stays on loopback, so that
// nobody is sent to a port that is not open.
func (c Config) AdminAddr() string {
	if c.AdminListen.IP().IsLoopback() {
		return c.AdminListen.String()
	}
	return c.advertised(c.AdminListen)
}

func (c Config) advertised(l ListenAddr) string {
	return net.JoinHostPort(c.Advertise, strconv.Itoa(int(l.Port())))
}
