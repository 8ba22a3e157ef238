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

// TestAddProcs: Go's processors are not set where none are added, or Go would no longer follow the container's limit.
func TestAddProcs(t *testing.T) {
	for _, spare := range []int{0, 2} {
		procs, calls := 4, 0
		addProcs(spare, func(n int) int {
			calls++
			before := procs
			if n > 0 {
				procs = n
			}
			return before
		})
		if procs != 4+spare || spare == 0 && calls > 0 {
			t.Errorf("%d to spare: %d processors after %d calls", spare, procs, calls)
		}
	}
}
