package main

import (
	"testing"

	"kai/node"
)

// Go gets two processors more where a thread waits for the disk, and where one node has the machine.
func TestSpareProcs(t *testing.T) {
	for _, tt := range []struct {
		durability node.Durability
		discovery  string
		aside      bool
		want       int
	}{
		{node.DurabilityAlways, "", true, 2},
		{node.DurabilityAlways, "", false, 2},
		{node.DurabilityAlways, "static:10.0.0.1:11213", true, 0},
		{node.DurabilityAlways, "static:10.0.0.1:11213", false, 2},
		{node.DurabilityInterval, "", false, 0},
		{node.DurabilityInterval, "static:10.0.0.1:11213", false, 0},
	} {
		if got := spareProcs(node.Config{Durability: tt.durability, Discovery: tt.discovery}, node.Self{SyncsAside: tt.aside}); got != tt.want {
			t.Errorf("%+v: %d", tt, got)
		}
	}
}
