package message

import (
	"testing"
	"time"

	"kai/node/record"
)

func BenchmarkReadAndReply(b *testing.B) {
	key := []byte("a key of thirty bytes, or so..")
	enc := record.Append(nil, key, &record.Record{Kind: record.Value, Value: make([]byte, 100)})
	in := &Request{Kind: Read, Key: key, Timeout: time.Second}
	buf := make([]byte, 0, 4096)
	var q Request
	var p Reply
	b.ReportAllocs()
	for b.Loop() {
		_, _ = ParseRequest(AppendRequest(buf, 1, in), &q)
		_, _ = ParseReply(AppendReply(buf, 1, &Reply{Status: OK, Record: enc}), key, &p)
	}
}

func BenchmarkAcceptAndReply(b *testing.B) {
	key := []byte("a key of thirty bytes, or so..")
	enc := record.Append(nil, key, &record.Record{Kind: record.Value, Value: make([]byte, 100)})
	in := &Request{Kind: Accept, Key: key, Ballot: record.Ballot{Epoch: 1}, Next: record.Ballot{Epoch: 1}, Record: enc, Timeout: time.Second}
	buf := make([]byte, 0, 4096)
	var q Request
	var p Reply
	b.ReportAllocs()
	for b.Loop() {
		_, _ = ParseRequest(AppendRequest(buf, 1, in), &q)
		_, _ = ParseReply(AppendReply(buf, 1, &Reply{Status: OK}), key, &p)
	}
}
