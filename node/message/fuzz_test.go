package message

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// FuzzRequest: whatever parses encodes to bytes that parse to the same; nothing panics. The fuzzer
// cannot guess checksums, so the input is the part they cover.
func FuzzRequest(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		f.Add(AppendRequest(nil, 1, randRequest(r))[versionAt:])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		frame := seal(append(make([]byte, versionAt), in...), 0)
		var q, again Request
		id, err := ParseRequest(frame, &q)
		if err != nil {
			return
		}
		once := AppendRequest(nil, id, &q)
		if _, err := ParseRequest(once, &again); err != nil {
			t.Fatalf("own encoding does not parse: %v", err)
		}
		if twice := AppendRequest(nil, id, &again); !bytes.Equal(once, twice) {
			t.Fatalf("encodings differ:\n%x\n%x", once, twice)
		}
	})
}

// FuzzReply is FuzzRequest for replies.
func FuzzReply(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	key := []byte("key")
	for range 50 {
		f.Add(AppendReply(nil, 1, randReply(r, key))[versionAt:])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		frame := seal(append(make([]byte, versionAt), in...), 0)
		var p, again Reply
		id, err := ParseReply(frame, key, &p)
		if err != nil {
			return
		}
		once := AppendReply(nil, id, &p)
		if _, err := ParseReply(once, key, &again); err != nil {
			t.Fatalf("own encoding does not parse: %v", err)
		}
		if twice := AppendReply(nil, id, &again); !bytes.Equal(once, twice) {
			t.Fatalf("encodings differ:\n%x\n%x", once, twice)
		}
	})
}

// FuzzItems: what parses encodes to bytes that parse to the same; nothing panics.
func FuzzItems(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		f.Add(AppendItem(AppendItem(nil, randItem(r)), randItem(r)))
		f.Add(AppendAnswer(AppendAnswer(nil, randAnswer(r)), randAnswer(r)))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for b := in; len(b) > 0; {
			it, rest, ok := NextItem(b)
			if !ok {
				break
			}
			if again := AppendItem(nil, it); !bytes.Equal(again, b[:len(b)-len(rest)]) {
				t.Fatalf("%x, again %x", b[:len(b)-len(rest)], again)
			}
			b = rest
		}
		for b := in; len(b) > 0; {
			a, rest, ok := NextAnswer(b)
			if !ok {
				break
			}
			if again := AppendAnswer(nil, a); len(a.Record) < maxAnswers && !bytes.Equal(again, b[:len(b)-len(rest)]) {
				t.Fatalf("%x, again %x", b[:len(b)-len(rest)], again)
			}
			b = rest
		}
	})
}

// FuzzFrameSize cuts any stream into frames without a panic and without going in circles.
func FuzzFrameSize(f *testing.F) {
	f.Add(AppendControl(AppendControl(nil, TypeControl, 1, nil), TypeControl, 2, []byte("body")))
	f.Fuzz(func(t *testing.T, in []byte) {
		for len(in) > 0 {
			n, err := FrameSize(in, 1<<16)
			if err != nil || n == 0 || n > len(in) {
				return
			}
			if _, err := ParseHead(in[:n]); err == nil {
				_, _ = ParseRequest(in[:n], new(Request))
				_, _ = ParseReply(in[:n], nil, new(Reply))
			}
			in = in[n:]
		}
	})
}
