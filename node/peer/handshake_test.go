package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"kai/node/message"
)

// shake runs both sides of a handshake and returns what each made of it.
func shake(client, server Identity, clientSpeaks, serverSpeaks [2]uint8, admit func(Identity) error) (c, s error) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	var both sync.WaitGroup
	both.Go(func() {
		in := &inbox{src: far, maxFrame: maxHello, count: new(counters)}
		if _, s = welcome(far, in, func() Identity { return server }, admit, serverSpeaks, 5*time.Second); s == nil {
			s = in.fill() // the client may still refuse
			if frame, _ := in.next(); frame != nil {
				_, s = receive(&inbox{src: bytes.NewReader(frame), maxFrame: maxHello, count: new(counters)})
			}
		}
	})
	both.Go(func() {
		in := &inbox{src: near, maxFrame: maxHello, count: new(counters)}
		_, c = greet(near, in, client, serverID, nil, clientSpeaks, 5*time.Second)
		near.Close()
	})
	both.Wait()
	return c, s
}

func TestHandshake(t *testing.T) {
	me, you := identity(clientID)(), identity(serverID)()
	with := func(id Identity, change func(*Identity)) Identity { change(&id); return id }
	other := with(you, func(i *Identity) { i.ClusterID, i.Cluster = "cluster-2", "else" })
	for _, c := range []struct {
		name           string
		client, server Identity
		cs, ss         [2]uint8
		admit          func(Identity) error
		want           Code // 0: accepted
		text           string
	}{
		{"good", me, you, versions, versions, nil, 0, ""},
		{"common version", me, you, [2]uint8{1, 3}, [2]uint8{2, 5}, nil, 0, ""},
		{"no common version", me, you, [2]uint8{1, 2}, [2]uint8{3, 5}, nil, NoVersion, "1 to 2"},
		{"server not founded", me, with(you, func(i *Identity) { i.ClusterID = "" }), versions, versions, nil, NotFounded, "not founded"},
		{"client not founded", with(me, func(i *Identity) { i.ClusterID = "" }), you, versions, versions, nil, NotFounded, "not founded"},
		{"two clusters", me, other, versions, versions, nil, WrongCluster, "cluster-2"},
		{"another node there", me, with(you, func(i *Identity) { i.Node = "abc" }), versions, versions, nil, WrongNode, "abc"},
		{"a copied directory", with(me, func(i *Identity) { i.Node = serverID }), you, versions, versions, nil, SameNode, "copy"},
		{"old boot", me, you, versions, versions, func(i Identity) error { return fmt.Errorf("boot %d is old", i.Boot) }, NotAdmitted, "boot 3 is old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cerr, serr := shake(c.client, c.server, c.cs, c.ss, c.admit)
			if c.want == 0 {
				if cerr != nil {
					t.Fatal(cerr)
				}
				return
			}
			var no *RefusedError
			if !errors.As(cerr, &no) || no.Code != c.want || !strings.Contains(no.Text, c.text) {
				t.Errorf("client: %v", cerr)
			}
			if c.client.ClusterID != "" && (!errors.As(serr, &no) || no.Code != c.want) {
				t.Errorf("server: %v", serr)
			}
		})
	}
}

// TestClientJudgesToo: a server that accepts anybody does not get a link.
func TestClientJudgesToo(t *testing.T) {
	for name, id := range map[string]Identity{
		"cluster": {Node: serverID, ClusterID: "cluster-2"},
		"node":    {Node: "impostor", ClusterID: "cluster-1"},
		"process": {Node: serverID, ClusterID: "cluster-1", Boot: 3, Process: 77},
	} {
		near, far := net.Pipe()
		heard := make(chan error, 1)
		go func() {
			in := &inbox{src: far, maxFrame: maxHello, count: new(counters)}
			_, _ = receive(in)
			_, _ = far.Write(appendHello(nil, &hello{low: 1, high: 1, version: 1, id: id}))
			_, err := receive(in)
			heard <- err
		}()
		in := &inbox{src: near, maxFrame: maxHello, count: new(counters)}
		var mine, theirs *RefusedError
		admit := func(i Identity) error { return fmt.Errorf("boot %d is old of process %d", i.Boot, i.Process) }
		if _, err := greet(near, in, identity(clientID)(), serverID, admit, versions, 5*time.Second); !errors.As(err, &mine) || mine.Remote {
			t.Errorf("%s: client says %v", name, err)
		}
		if mine != nil && mine.Code == NotAdmitted && !strings.Contains(mine.Text, "boot 3 is old of process 77") {
			t.Errorf("%s: %v", name, mine)
		}
		if err := <-heard; !errors.As(err, &theirs) || !theirs.Remote || theirs.Code != mine.Code {
			t.Errorf("%s: server hears %v", name, err)
		}
	}
}

func TestStrangersAtThePeerPort(t *testing.T) {
	for name, say := range map[string]string{
		"http":           "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"zeroes":         strings.Repeat("\x00", 100),
		"a request":      string(message.AppendRequest(nil, 1, &message.Request{Kind: message.Read, Key: []byte("k")})),
		"a ping":         string(message.AppendControl(nil, typePing, 1, nil)),
		"an empty hello": string(message.AppendControl(nil, typeHello, 1, nil)),
		"no magic":       string(message.AppendControl(nil, typeHello, 1, make([]byte, 100))),
		"a cut hello":    string(message.AppendControl(nil, typeHello, 1, []byte("KAI\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\xffx"))),
	} {
		near, far := net.Pipe()
		go func() { _, _ = near.Write([]byte(say)) }()
		in := &inbox{src: far, maxFrame: maxHello, count: new(counters)}
		if _, err := welcome(far, in, identity(serverID), nil, versions, 5*time.Second); !errors.Is(err, errNotKai) {
			t.Errorf("%s: %v", name, err)
		}
		near.Close()
		far.Close()
	}
}

// TestLinkComesUpAtFounding: both nodes wait for their cluster id, and say so once.
func TestLinkComesUpAtFounding(t *testing.T) {
	var mu sync.Mutex
	founded := false
	late := func(id func() Identity) func() Identity {
		return func() Identity {
			mu.Lock()
			defer mu.Unlock()
			i := id()
			if !founded {
				i.ClusterID = ""
			}
			return i
		}
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&locked{w: &log}, nil))
	p := newPipes()
	c := NewClient(ClientOptions{Node: serverID, Identity: identity(clientID), Dialer: p, Logger: logger, MinBackoff: time.Microsecond, MaxBackoff: time.Millisecond})
	s := NewServer(ServerOptions{Identity: late(identity(serverID)), Handler: newStore()})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = s.Serve(ctx, p) })
	all.Go(func() { _ = c.Run(ctx) })
	for c.Stats().Refusals < 3 {
		time.Sleep(time.Millisecond)
	}
	if c.Healthy() {
		t.Error("healthy before founding")
	}
	mu.Lock()
	founded = true
	mu.Unlock()
	(&rig{client: c}).connected(t)
	cancel()
	all.Wait()
	if n := strings.Count(log.String(), "not founded"); n != 1 {
		t.Errorf("%d lines about one refusal:\n%s", n, log.String())
	}
}

// locked lets a test's log be written by several goroutines.
type locked struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
