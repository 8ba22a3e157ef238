package peer

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
)

func both(t *testing.T, f func(t *testing.T, pipe bool)) {
	for _, pipe := range []bool{false, true} {
		t.Run(map[bool]string{false: "tcp", true: "pipe"}[pipe], func(t *testing.T) { f(t, pipe) })
	}
}

func TestRoundTrips(t *testing.T) {
	both(t, func(t *testing.T, pipe bool) {
		st := newStore()
		ctx, cancel := context.WithCancel(t.Context())
		var committer sync.WaitGroup
		committer.Go(func() { st.commit(ctx) })
		defer committer.Wait()
		defer cancel()
		r := start(t, ClientOptions{}, ServerOptions{Handler: st}, pipe)
		var callers sync.WaitGroup
		for c := range 8 {
			callers.Go(func() {
				for i := range 200 {
					key := fmt.Sprintf("key-%d-%d", c, i)
					get, put := r.ask(read(key)), r.ask(accept(key))
					r.client.Flush()
					if get.status() != message.OK || record.Check([]byte(key), get.reply.Record) != nil {
						t.Errorf("read: %+v", get.reply)
					}
					if put.status() != message.OK {
						t.Errorf("accept: %+v", put.reply)
					}
				}
			})
		}
		callers.Wait()
		big := read("big")
		big.Kind, big.Op = message.Mutate, record.Op{Kind: record.Set, Value: make([]byte, 900<<10)}
		got := r.ask(big)
		r.client.Flush()
		if got.status() != message.OK || len(got.reply.Result.Value) != 3+900<<10 {
			t.Errorf("mutate with a large value: %v, %d bytes", got.reply.Status, len(got.reply.Result.Value))
		}
		for r.client.Stats().Pending != 0 { // slots are given back behind the last answer
			time.Sleep(time.Millisecond)
		}
		if s := r.client.Stats(); s.QueuedBytes != 0 || r.client.RTT() == 0 {
			t.Errorf("left behind: %+v", s)
		}
	})
}

func TestRepliesOutOfOrder(t *testing.T) {
	both(t, func(t *testing.T, pipe bool) {
		var mu sync.Mutex
		var held []*message.Call
		r := start(t, ClientOptions{}, ServerOptions{Handler: handle(func(c *message.Call) {
			c.Reply.Status = message.OK
			c.Reply.Result.Number, _ = strconv.ParseUint(string(c.Key), 10, 64)
			mu.Lock()
			defer mu.Unlock()
			if held = append(held, c.Keep()); len(held) == 100 {
				rand.Shuffle(100, func(i, j int) { held[i], held[j] = held[j], held[i] })
				go func(all []*message.Call) {
					for _, c := range all {
						c.Completion.Done(c)
					}
				}(held)
			}
		})}, pipe)
		var asked []*once
		for i := range 100 {
			asked = append(asked, r.ask(read(strconv.Itoa(i))))
		}
		r.client.Flush()
		for i, o := range asked {
			if o.status() != message.OK || o.reply.Result.Number != uint64(i) {
				t.Errorf("call %d got %+v", i, o.reply)
			}
		}
	})
}

// TestStuckPeer: the other side never reads. Send and Flush return all the same, the queue fills
// up, and every call is answered once.
func TestStuckPeer(t *testing.T) {
	both(t, func(t *testing.T, pipe bool) {
		var ln net.Listener
		o := ClientOptions{Identity: identity(clientID), Node: serverID, MaxQueueBytes: 1 << 20}
		if pipe {
			p := newPipes()
			ln, o.Dialer = p, p
		} else {
			ln, _ = net.Listen("tcp", "127.0.0.1:0")
			o.Addr = ln.Addr().String()
		}
		defer ln.Close()
		r := &rig{client: NewClient(o)}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			conn, err := ln.Accept()
			if err == nil {
				overhear(t, conn)
				<-ctx.Done()
				conn.Close()
			}
		})
		all.Go(func() { _ = r.client.Run(ctx) })
		r.connected(t)
		q := accept("k")
		q.Record = record.Append(nil, q.Key, &record.Record{Kind: record.Value, Value: make([]byte, 100<<10)})
		q.Timeout = time.Hour
		asked, busy := []*once{r.ask(q)}, 0
		r.client.Flush()
		for l := r.client.link.Load(); ; time.Sleep(time.Millisecond) { // until it is being written
			l.out.mu.Lock()
			sent := l.out.base
			l.out.mu.Unlock()
			if sent > 0 {
				break
			}
		}
		for i := 1; busy < 10; i++ {
			o := r.ask(q)
			r.client.Flush()
			select {
			case <-o.done:
				if o.status() != message.Busy {
					t.Fatalf("call %d: %v", i, o.status())
				}
				busy++
			default:
				asked = append(asked, o)
			}
		}
		cancel()
		all.Wait()
		counts := map[message.Status]int{}
		for _, o := range asked {
			counts[o.status()]++
		}
		if counts[message.TimedOut] == 0 || counts[message.Unreachable] == 0 || len(counts) != 2 {
			t.Errorf("answers after the break: %v; want some timed out (sent) and some unreachable (still queued)", counts)
		}
	})
}

// cutter dials connections and cuts them at random moments.
type cutter struct {
	Dialer
	mu   sync.Mutex
	last net.Conn
}

func (d *cutter) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := d.Dialer.DialContext(ctx, network, addr)
	d.mu.Lock()
	d.last = conn
	d.mu.Unlock()
	return conn, err
}

func (d *cutter) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last != nil {
		d.last.Close()
	}
}

func TestEveryCallIsAnsweredOnceThroughBrokenLinks(t *testing.T) {
	st := newStore()
	ctx, cancel := context.WithCancel(t.Context())
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	helpers.Go(func() { st.commit(ctx) })
	d := &cutter{Dialer: &net.Dialer{}}
	r := start(t, ClientOptions{Dialer: d, MinBackoff: time.Microsecond, MaxBackoff: time.Millisecond}, ServerOptions{Handler: st}, false)
	helpers.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(rand.N(3 * time.Millisecond))
			d.cut()
		}
	})
	var mu sync.Mutex
	seen := map[message.Status]int{}
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 300 {
				time.Sleep(rand.N(200 * time.Microsecond))
				var asked []*once
				for range 1 + rand.IntN(4) {
					asked = append(asked, r.ask(read("k")), r.ask(accept("k")))
				}
				r.client.Flush()
				for _, o := range asked {
					s := o.status()
					mu.Lock()
					seen[s]++
					mu.Unlock()
				}
			}
		})
	}
	callers.Wait()
	cancel()
	r.stop()
	for s := range seen {
		if s != message.OK && s != message.TimedOut && s != message.Unreachable {
			t.Errorf("status %v", s)
		}
	}
	if seen[message.OK] == 0 || r.client.Stats().Connects < 3 {
		t.Errorf("nothing was tried: %v, %d links", seen, r.client.Stats().Connects)
	}
	t.Logf("%v over %d links", seen, r.client.Stats().Connects)
}

func TestBounds(t *testing.T) {
	held := make(chan *message.Call, 100)
	r := start(t, ClientOptions{MaxCalls: 3, MaxValue: 1000}, ServerOptions{Handler: handle(func(c *message.Call) { held <- c.Keep() })}, false)
	unheard := &rig{client: NewClient(ClientOptions{Identity: identity(clientID)})}
	if s := unheard.ask(read("k")).status(); s != message.Unreachable {
		t.Errorf("not connected: %v", s)
	}
	for name, q := range map[string]message.Request{
		"no key":   {Kind: message.Read},
		"too long": {Kind: message.Mutate, Key: []byte("k"), Op: record.Op{Value: make([]byte, 1<<20)}},
	} {
		if s := r.ask(q).status(); s != message.Invalid {
			t.Errorf("%s: %v", name, s)
		}
	}
	spent := read("k")
	spent.Timeout = -1
	if s := r.ask(spent).status(); s != message.Busy {
		t.Errorf("no time left: %v", s)
	}
	asked := []*once{r.ask(read("a")), r.ask(read("b")), r.ask(read("c"))}
	if s := r.ask(read("d")).status(); s != message.Busy {
		t.Errorf("beyond MaxCalls: %v", s)
	}
	r.client.Flush()
	for range asked {
		c := <-held
		c.Reply.Status = message.OK
		c.Completion.Done(c)
	}
	for _, o := range asked {
		if s := o.status(); s != message.OK {
			t.Error(s)
		}
	}
}

// TestDamage: whatever a server answers that is not a reply, no call is answered wrongly.
func TestDamage(t *testing.T) {
	p := newPipes()
	defer p.Close()
	r := &rig{client: NewClient(ClientOptions{Identity: identity(clientID), Node: serverID, Dialer: p, MinBackoff: time.Microsecond})}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() { _ = r.client.Run(ctx) })
	good := message.AppendReply(nil, 1<<slotBits, &message.Reply{Status: message.OK})
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for name, c := range map[string]struct {
		frame []byte
		want  message.Status
	}{
		"good":        {good, message.OK},
		"damaged":     {flipped, message.TimedOut},
		"nonsense":    {bytes.Repeat([]byte{0xff}, 64), message.TimedOut},
		"other id":    {message.AppendReply(nil, 77<<slotBits, &message.Reply{Status: message.OK}), message.TimedOut},
		"far slot":    {message.AppendReply(nil, 1<<slotBits|60000, &message.Reply{Status: message.OK}), message.TimedOut},
		"a request":   {message.AppendRequest(nil, 1<<slotBits, &message.Request{Kind: message.Read, Key: []byte("k")}), message.TimedOut},
		"bad status":  {message.AppendReply(nil, 1<<slotBits, &message.Reply{Status: 99}), message.TimedOut},
		"new control": {message.AppendControl(nil, 0xf0, 1, nil), message.TimedOut},
	} {
		conn, err := p.Accept()
		if err != nil {
			t.Fatal(err)
		}
		in := overhear(t, conn)
		r.connected(t)
		for r.client.link.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		o := r.ask(read("k"))
		r.client.Flush()
		if err := in.fill(); err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(c.frame)
		conn.Close()
		if s := o.status(); s != c.want {
			t.Errorf("%s: %v, want %v", name, s, c.want)
		}
		for r.client.Healthy() {
			time.Sleep(time.Millisecond)
		}
	}
}
