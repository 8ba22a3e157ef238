package membership

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"kai/node/ring"
)

// gossipConfig is memberlist's configuration, measured for this use (CLOUD: "Discovery"): a crash
// is seen by three nodes in 2 s and by fifty in 4 s, at about 100 B/s a node when idle.
func (m *Membership) gossipConfig() *memberlist.Config {
	o := &m.options
	c := memberlist.DefaultLANConfig()
	c.Name = string(o.Self.ID) // not an address: a node may come back elsewhere
	c.Label = "kai/1/" + o.Cluster
	c.SecretKey = o.Key
	c.Transport = o.Transport
	if o.Transport == nil {
		bind, _ := bindAddr(o.Bind) // checked by New
		c.BindAddr, c.BindPort = bind.Addr().String(), int(bind.Port())
		c.AdvertisePort = c.BindPort
	}
	if a, err := netip.ParseAddrPort(o.Advertise); err == nil {
		c.AdvertiseAddr, c.AdvertisePort = a.Addr().String(), int(a.Port())
	}
	c.ProbeInterval, c.ProbeTimeout = 500*time.Millisecond, 200*time.Millisecond
	c.SuspicionMult = 3
	c.GossipInterval = 100 * time.Millisecond
	c.PushPullInterval = 15 * time.Second
	c.TCPTimeout = o.Timing.Stream
	// With compression, 300 nodes on two cores never converged; without, in 22 s.
	c.EnableCompression = false
	// A dead node's id may be taken over from a new address at once: ids are random, and boot
	// counts tell processes apart.
	c.DeadNodeReclaimTime = time.Nanosecond
	c.Logger = log.New(&gossipLog{m.log}, "", 0)
	d := delegate{m}
	c.Delegate, c.Alive, c.Events, c.Conflict = d, d, d, d
	return c
}

// gossipLog turns memberlist's log lines into slog records. Its errors are the weather of a
// network, not a call for a person, so nothing here is above Warn.
type gossipLog struct{ log *slog.Logger }

func (g *gossipLog) Write(line []byte) (int, error) {
	text := bytes.TrimSpace(line)
	level := slog.LevelDebug
	if bytes.HasPrefix(text, []byte("[")) {
		if end := bytes.IndexByte(text, ']'); end > 0 {
			if word := string(text[1:end]); word == "WARN" || word == "ERR" || word == "ERROR" {
				level = slog.LevelWarn
			}
			text = bytes.TrimSpace(text[end+1:])
		}
	}
	text = bytes.TrimPrefix(text, []byte("memberlist: "))
	g.log.Log(context.Background(), level, "gossip", "detail", string(text))
	return len(line), nil
}

var _ io.Writer = (*gossipLog)(nil)

// post sends a message later; it may be lost.
func (m *Membership) post(to memberlist.Node, msg message) {
	m.later(func() {
		if err := m.list.SendReliable(&to, encodeMessage(msg)); err != nil {
			m.log.Debug("message not sent", "kind", msg.Kind, "peer", to.Name, "error", err)
		}
	})
}

// later runs f on a sender; when all are busy and the queue is full it is dropped.
func (m *Membership) later(f func()) {
	select {
	case m.outbox <- f:
	default:
		m.stats.dropped.Add(1)
	}
}

func (m *Membership) sendAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-m.outbox:
			f()
		}
	}
}

// complain logs about a node, about each not more often than sayEvery.
func (m *Membership) complain(id ring.NodeID, addr string, err error) {
	const most = 1024
	m.speak.Lock()
	defer m.speak.Unlock()
	key, now := string(id)+addr, time.Now()
	if last, ok := m.spoken[key]; ok && now.Sub(last) < sayEvery {
		return
	}
	if len(m.spoken) >= most {
		clear(m.spoken)
	}
	m.spoken[key] = now
	m.log.Error("node refused", "peer", id, "addr", addr, "error", err)
}
