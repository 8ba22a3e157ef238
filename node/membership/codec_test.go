package membership

import (
	"encoding/hex"
	"io"
	"log/slog"
	"strings"
	"testing"

	"kai/node/ring"
)

func testMeta() meta {
	return meta{
		Boot: 300, Settings: settings{ring.Quorum{N: 3, R: 2, W: 2}, 1024, 128}, Expect: 3, ClusterID: strings.Repeat("ab", 16),
		Zone: "eu-1a", PeerAddr: "10.0.0.1:11212", AdminAddr: "10.0.0.1:11214", Version: "v1.2.3", Slot: 300, Draining: true, Process: 1 << 40, Weight: 2500,
	}
}

func TestMeta(t *testing.T) {
	want := testMeta()
	b := appendMeta(nil, want)
	got, err := parseMeta(append(b, 1, 2, 3)) // a later build's field
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range b {
		got, err := parseMeta(b[:i])
		switch len(b) - i {
		case 11: // what a build before slots says
			if err != nil || got.Slot != -1 || got.Weight != 0 {
				t.Errorf("without a slot: %+v, %v", got, err)
			}
			continue
		case 8: // what a build before processes says
			if err != nil || got.Slot != want.Slot || got.Process != 0 {
				t.Errorf("without a process: %+v, %v", got, err)
			}
			continue
		case 2: // what a build before weights says
			if err != nil || got.Slot != want.Slot || got.Process != want.Process || got.Weight != 0 {
				t.Errorf("without a weight: %+v, %v", got, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("cut after %d bytes: taken", i)
		}
	}
	if _, err := parseMeta(append([]byte{9}, b[1:]...)); err == nil || !strings.Contains(err.Error(), "format 9") {
		t.Errorf("format 9: %v", err)
	}
	// Nodes of different builds gossip with each other: these bytes are a format.
	const golden = "01030202ac02800880010320" + "6162616261626162616261626162616261626162616261626162616261626162" +
		"0565752d31610e31302e302e302e313a31313231320e31302e302e302e313a31313231340676312e322e33" + "ad0201" + "808080808020" + "c413"
	if got := hex.EncodeToString(b); got != golden {
		t.Errorf("the format has changed: %s", got)
	}
}

func FuzzParseMeta(f *testing.F) {
	f.Add(appendMeta(nil, testMeta()))
	f.Add(appendMeta(nil, meta{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err != nil {
			return
		}
		if again, err := parseMeta(appendMeta(nil, m)); err != nil || again != m {
			t.Fatalf("%+v, then %+v, %v", m, again, err)
		}
	})
}

func testFounding() *ring.Founding {
	return &ring.Founding{
		ClusterID: strings.Repeat("ab", 16), Generation: 1, Name: "kai", Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 1024, VNodes: 128,
		Nodes: []ring.Node{{ID: nodeID(1), Zone: "a"}, {ID: nodeID(2), Zone: "b"}},
	}
}

func TestMessageRefusals(t *testing.T) {
	good := message{Kind: propose, From: nodeID(1), Proposer: nodeID(1), Founding: testFounding()}
	if _, err := decodeMessage(encodeMessage(good)); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*message){
		"no founding":    func(m *message) { m.Founding = nil },
		"bad sender":     func(m *message) { m.From = "x" },
		"unsorted nodes": func(m *message) { m.Founding.Nodes[0].ID = nodeID(9) },
		"quorum":         func(m *message) { m.Founding.Quorum.W = 1 },
		"partitions":     func(m *message) { m.Founding.Partitions = 3 },
		"cluster id":     func(m *message) { m.Founding.ClusterID = "x" },
		"no cluster id":  func(m *message) { *m = message{Kind: voted, From: nodeID(1)} },
	} {
		m := good
		m.Founding = testFounding()
		spoil(&m)
		if _, err := decodeMessage(encodeMessage(m)); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(encodeMessage(message{Kind: propose, From: nodeID(1), Proposer: nodeID(1), Founding: testFounding()}))
	f.Add(encodeMessage(message{Kind: voted, From: nodeID(1), Proposer: nodeID(2), ClusterID: "x"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		if _, err := decodeMessage(encodeMessage(m)); err != nil {
			t.Fatalf("%+v does not survive: %v", m, err)
		}
		g, err := newGenesis(&Options{
			Self: ring.NodeInfo{Node: ring.Node{ID: nodeID(2)}}, Cluster: "kai", Store: &disk{}, Expect: 2,
			Quorum: ring.Quorum{N: 3, R: 2, W: 2}, Partitions: 1024, VNodes: 128, Logger: silent,
		})
		if err != nil {
			t.Fatal(err)
		}
		g.receive(g.now, m) //nolint:errcheck // must not panic
	})
}

func TestOptionsSayAllFaults(t *testing.T) {
	_, err := New(Options{
		Self: ring.NodeInfo{Node: ring.Node{ID: "x", Zone: strings.Repeat("z", 200)}, PeerAddr: strings.Repeat("p", 200), AdminAddr: strings.Repeat("a", 200)},
		Bind: "localhost:1", Advertise: "kai:1", Key: []byte("short"), Partitions: 100, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err == nil {
		t.Fatal("taken")
	}
	for _, word := range []string{"16 lower-case", "cluster's name", "key has 5", "expecting 0", "power of two", "vnodes", "no founding store", "quorum", "must be an IP address", "ip:port as others", "too long to gossip"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("no word of %q in:\n%v", word, err)
		}
	}
}
