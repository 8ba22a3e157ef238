package main

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// rawCodec hands bytes through. Marshal copies, because gRPC keeps them until they are written;
// what is received is copied once, out of gRPC's buffers.
type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.Copy(*v.(*[]byte), mem.DefaultBufferPool())}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b := v.(*[]byte)
	if n := data.Len(); cap(*b) < n {
		*b = make([]byte, n)
	} else {
		*b = (*b)[:n]
	}
	data.CopyTo(*b)
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

type grpcStream struct {
	s interface {
		SendMsg(m any) error
		RecvMsg(m any) error
	}
	out, in []byte
}

func (g *grpcStream) send(b []byte) error {
	g.out = b
	return g.s.SendMsg(&g.out)
}

func (g *grpcStream) receive() ([]byte, error) {
	err := g.s.RecvMsg(&g.in)
	return g.in, err
}

func openGRPC(n int) ([]exchange, func(), error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	desc := grpc.StreamDesc{StreamName: "exchange", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, s grpc.ServerStream) error { return serve(&grpcStream{s: s}) }}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "kai", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{desc}}, nil)
	go func() { _ = server.Serve(ln) }()
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
	if err != nil {
		return nil, nil, err
	}
	s, err := conn.NewStream(context.Background(), &desc, "/kai/exchange")
	if err != nil {
		return nil, nil, err
	}
	return multiplex(&grpcStream{s: s}, n), func() { _ = conn.Close(); server.Stop() }, nil
}
