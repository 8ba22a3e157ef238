package peer

import (
	"testing"
	"time"

	"kai/node/message"
	"kai/node/record"
)

// Builds of two versions talk: what both know is sent, whatever is newer is answered Unsupported at once.
func TestOlderBuild(t *testing.T) {
	old := [2]uint8{message.Oldest, message.Oldest}
	requests := map[string]message.Request{
		"read":         read("key"),
		"accept":       accept("key"),
		"read many":    {Kind: message.ReadMany, Items: message.AppendItem(nil, message.Item{Epoch: 1, Key: []byte("key")}), Timeout: 5 * time.Second},
		"sums":         {Kind: message.Sums, Timeout: 5 * time.Second},
		"internal key": read(string(make([]byte, record.MaxKey+1))),
		"set":          {Kind: message.Mutate, Key: []byte("key"), Op: record.Op{Kind: record.Set}, Timeout: 5 * time.Second},
		"restore":      {Kind: message.Mutate, Key: []byte("key"), Op: record.Op{Kind: record.Restore}, Timeout: 5 * time.Second},
	}
	newer := map[string]bool{"read many": true, "sums": true, "internal key": true, "restore": true}
	for _, c := range []struct {
		name           string
		client, server [2]uint8
	}{{"new to new", versions, versions}, {"new to old", versions, old}, {"old to new", old, versions}} {
		s := newStore()
		go s.commit(t.Context())
		r := start(t, ClientOptions{speak: c.client}, ServerOptions{Handler: s, speak: c.server}, true)
		for name, q := range requests {
			want := message.OK
			if newer[name] && c.name != "new to new" {
				want = message.Unsupported
			}
			o := r.ask(q)
			r.client.Flush()
			if got := o.status(); got != want {
				t.Errorf("%s, %s: %s, want %s", c.name, name, got, want)
			}
		}
		r.stop()
	}
}
