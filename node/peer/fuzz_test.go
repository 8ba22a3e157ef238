package peer

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"kai/node/message"
)

// FuzzHello: whatever parses as hello survives a round trip.
func FuzzHello(f *testing.F) {
	id := identity(clientID)()
	f.Add(message.Body(appendHello(nil, &hello{low: 1, high: 2, version: 1, id: id, expect: serverID})))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := parseHello(in)
		if err != nil {
			if !errors.Is(err, errNotKai) {
				t.Fatal(err)
			}
			return
		}
		again, err := parseHello(message.Body(appendHello(nil, &h)))
		if err != nil || again != h {
			t.Fatalf("%+v became %+v, %v", h, again, err)
		}
	})
}

// dribble reads a stream in pieces whose sizes the fuzzer picks.
type dribble struct {
	data  []byte
	sizes []byte
	i     int
}

func (d *dribble) Read(p []byte) (int, error) {
	if len(d.data) == 0 {
		return 0, io.EOF
	}
	n := len(d.data)
	if len(d.sizes) > 0 {
		n = 1 + int(d.sizes[d.i%len(d.sizes)])
		d.i++
	}
	n = copy(p, d.data[:min(n, len(d.data))])
	d.data = d.data[n:]
	return n, nil
}

// FuzzInbox: however a stream is cut into reads, the same frames come out, and a link and a session
// that read it neither panic nor answer twice.
func FuzzInbox(f *testing.F) {
	q := accept("key")
	r := message.Reply{Status: message.OK}
	stream := message.AppendReply(message.AppendRequest(message.AppendControl(nil, typePing, 1, nil), 2, &q), 1<<slotBits, &r)
	f.Add(stream, []byte{0, 3, 255})
	f.Add(bytes.Repeat(stream, 300), []byte{200})
	f.Fuzz(func(t *testing.T, stream, sizes []byte) {
		whole := frames(&dribble{data: stream})
		if pieces := frames(&dribble{data: stream, sizes: sizes}); !bytes.Equal(whole, pieces) {
			t.Fatalf("%d bytes of frames at once, %d in pieces", len(whole), len(pieces))
		}
		near, far := net.Pipe()
		defer far.Close()
		c := NewClient(ClientOptions{Identity: identity(clientID), Node: serverID})
		l := newLink(c, near, &inbox{src: &dribble{data: stream, sizes: sizes}, maxFrame: c.frame, count: &c.count}, message.Newest)
		o := &once{done: make(chan struct{})}
		if s := l.send(&message.Call{Request: read("key"), Completion: o}); s != 0 {
			t.Fatal(s)
		}
		_ = l.read()
		l.out.close()
		l.bury()
		<-o.done
		s := NewServer(ServerOptions{Identity: identity(serverID), Handler: newStore()})
		_, far2 := net.Pipe()
		x := newSession(s, far2, &inbox{src: &dribble{data: stream, sizes: sizes}, maxFrame: s.frame, count: &s.count})
		_ = x.read()
		x.out.close()
	})
}

// frames joins the frames of a stream, each with its length in front.
func frames(src io.Reader) (all []byte) {
	in := &inbox{src: src, maxFrame: 1 << 16, count: new(counters)}
	for in.fill() == nil {
		for {
			frame, err := in.next()
			if err != nil {
				return all
			}
			if frame == nil {
				break
			}
			all = append(append(all, byte(len(frame))), frame...)
		}
	}
	return all
}
