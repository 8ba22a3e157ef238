package main

import (
	"context"
	"net"

	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcserver"
)

// rawEncoding hands bytes through. DRPC's buffer is its own after Unmarshal returns, so that copies.
type rawEncoding struct{}

func (rawEncoding) Marshal(m drpc.Message) ([]byte, error) { return *m.(*[]byte), nil }

func (rawEncoding) Unmarshal(b []byte, m drpc.Message) error {
	p := m.(*[]byte)
	*p = append((*p)[:0], b...)
	return nil
}

type drpcStream struct {
	s       drpc.Stream
	out, in []byte
}

func (d *drpcStream) send(b []byte) error {
	d.out = b
	return d.s.MsgSend(&d.out, rawEncoding{})
}

func (d *drpcStream) receive() ([]byte, error) {
	err := d.s.MsgRecv(&d.in, rawEncoding{})
	return d.in, err
}

type drpcHandler struct{}

func (drpcHandler) HandleRPC(s drpc.Stream, _ string) error { return serve(&drpcStream{s: s}) }

func openDRPC(n int) ([]exchange, func(), error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _ = drpcserver.New(drpcHandler{}).Serve(ctx, ln) }()
	tcp, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		cancel()
		return nil, nil, err
	}
	conn := drpcconn.New(tcp)
	s, err := conn.NewStream(ctx, "/kai/exchange", rawEncoding{})
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return multiplex(&drpcStream{s: s}, n), func() { _ = conn.Close(); cancel() }, nil
}
