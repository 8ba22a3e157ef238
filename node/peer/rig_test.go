package peer

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
	"kai/node/ring"
)

const (
	clientID = ring.NodeID("c000000000000001")
	serverID = ring.NodeID("5000000000000002")
)

func identity(id ring.NodeID) func() Identity {
	return func() Identity { return Identity{Node: id, Boot: 3, ClusterID: "cluster-1", Cluster: "kai"} }
}

// pipes is a network in memory: a Listener and the Dialer to it.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	gone  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), gone: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.gone:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.gone) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.gone:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// handle is a Handler made of a function.
type handle func(*message.Call)

func (h handle) Send(c *message.Call) { h(c) }

// store answers Read with a record of the key, at once, and Accept later, from a committer that
// takes all there is and calls hold before, release after it.
type store struct {
	accepts       chan *message.Call
	hold, release func()
}

func newStore() *store { return &store{accepts: make(chan *message.Call, 1<<16)} }

func (s *store) Send(call *message.Call) {
	switch call.Kind {
	case message.Accept:
		s.accepts <- call.Keep()
	case message.Mutate:
		call.Reply.Result = record.Result{Status: record.Found, Value: append([]byte("re:"), call.Op.Value...)}
		fallthrough
	default:
		call.Reply.Status = message.OK
		if !call.Digest && call.Kind == message.Read {
			call.Reply.Record = record.Append(call.Room[:0], call.Key, &record.Record{Kind: record.Value, Value: hundred[:]})
		}
		call.Completion.Done(call)
	}
}

var hundred [100]byte

func (s *store) commit(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case call := <-s.accepts:
			if s.hold != nil {
				s.hold()
			}
			for n := len(s.accepts); ; n-- {
				call.Reply.Status = message.OK
				call.Completion.Done(call)
				if n == 0 {
					break
				}
				call = <-s.accepts
			}
			if s.release != nil {
				s.release()
			}
		}
	}
}

// rig is a client and a server that talk.
type rig struct {
	client *Client
	server *Server
	stop   func() // both, and waits
}

func start(t testing.TB, co ClientOptions, so ServerOptions, pipe bool) *rig {
	t.Helper()
	var ln net.Listener
	if pipe {
		p := newPipes()
		ln = p
		if co.Dialer == nil {
			co.Dialer = p
		}
	} else {
		var err error
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		co.Addr = ln.Addr().String()
	}
	if co.Identity == nil {
		co.Identity = identity(clientID)
	}
	if so.Identity == nil {
		so.Identity = identity(serverID)
	}
	co.Node = serverID
	r := &rig{client: NewClient(co), server: NewServer(so)}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		if err := r.server.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() {
		if err := r.client.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	r.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	t.Cleanup(r.stop)
	r.connected(t)
	return r
}

func (r *rig) connected(t testing.TB) {
	for range 2000 {
		if r.client.Healthy() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("no link")
}

// once counts answers, and keeps copies of them.
type once struct {
	answers atomic.Int32
	reply   message.Reply
	done    chan struct{}
}

func (o *once) Done(call *message.Call) {
	if o.answers.Add(1) > 1 {
		panic("answered twice")
	}
	o.reply = call.Reply
	o.reply.Record = append([]byte(nil), call.Reply.Record...)
	o.reply.Result.Value = append([]byte(nil), call.Reply.Result.Value...)
	close(o.done)
}

// ask sends and returns what will hold the answer.
func (r *rig) ask(q message.Request) *once {
	o := &once{done: make(chan struct{})}
	r.client.Send(&message.Call{Request: q, Completion: o})
	return o
}

func (o *once) status() message.Status {
	<-o.done
	return o.reply.Status
}

func read(key string) message.Request {
	return message.Request{Kind: message.Read, Key: []byte(key), Hash: ring.Hash([]byte(key)), Timeout: 5 * time.Second}
}

func accept(key string) message.Request {
	q := read(key)
	q.Kind = message.Accept
	q.Ballot = record.Ballot{Epoch: 1, Stamp: 2}
	q.Record = record.Append(nil, q.Key, &record.Record{Ballot: q.Ballot, Kind: record.Value, Value: hundred[:]})
	return q
}

// overhear runs a Server's handshake on conn and leaves the rest to the test.
func overhear(t testing.TB, conn net.Conn) *inbox {
	t.Helper()
	in := &inbox{src: conn, maxFrame: maxHello, count: new(counters)}
	if _, err := welcome(conn, in, identity(serverID), nil, versions, 5*time.Second); err != nil {
		t.Error(err)
	}
	in.maxFrame = message.MaxFrame(1 << 20)
	return in
}
