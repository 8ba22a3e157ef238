//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"kai/node/console"
)

// TestSlowReplicaIsFound: a replica that hangs for a moment under load is named by kai trace slow, and by the metric that the Quorum dashboard shows first.
func TestSlowReplicaIsFound(t *testing.T) {
	c := start(t, 3, "KAI_PARTITIONS=64", "KAI_TRACE_SLOW=50ms")
	a, b := c.nodes[0], c.nodes[1]
	own, err := b.status()
	if err != nil {
		t.Fatal(err)
	}
	l := c.load(seed(t), a)
	time.Sleep(seconds(t, 0.1))
	b.pause()
	time.Sleep(200 * time.Millisecond)
	b.resume()
	eventually(t, slow, "kai trace slow names the replica", func() error {
		out, err := c.kai("trace", "slow", "-n", "100", "-o", "json", "--admin", a.admin())
		if err != nil {
			return err
		}
		var all []console.Request
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			return err
		}
		waited := map[string]int{}
		for _, r := range all {
			for _, s := range r.Steps {
				if s.Answered == nil || *s.Answered-s.Sent > 0.04 {
					waited[s.Node]++
				}
			}
		}
		most := ""
		for id, n := range waited {
			if n > waited[most] {
				most = id
			}
		}
		if most != own.NodeID {
			return fmt.Errorf("%d requests were slow; they waited for %v, and it was %s", len(all), waited, own.NodeID)
		}
		t.Logf("%d requests were slow, and waited for %v", len(all), waited)
		return nil
	})
	all, err := a.labelled("kai_peer_hedged_total")
	if err != nil {
		t.Fatal(err)
	}
	hedged, other := 0.0, 0.0
	for labels, v := range all {
		if labels == fmt.Sprintf("peer=%q", own.NodeID) {
			hedged = v
		} else {
			other += v
		}
	}
	if t.Logf("hedged for it %g times, for others %g", hedged, other); hedged == 0 {
		t.Errorf("the metric does not show it: %v", all)
	}
	l.verify(t, c)
}
