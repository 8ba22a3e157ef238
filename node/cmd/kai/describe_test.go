package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"kai/discovery"
	"kai/node"
)

// What is sent names the node, and where it is, as far as it is known.
func TestDescribe(t *testing.T) {
	text := func(self node.Self) string {
		var all []string
		for _, a := range describe(self) {
			all = append(all, fmt.Sprintf("%s=%s", a.Key, a.Value.AsString()))
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	for _, tt := range []struct {
		self node.Self
		want string
	}{
		{node.Self{ID: "n1", Cluster: "kai"}, "kai.cluster=kai service.instance.id=n1"},
		{node.Self{ID: "n1", Cluster: "kai", Zone: "eu-central-1b", Place: discovery.Place{Instance: "i-7", Zone: "eu-central-1b", Cloud: "aws"}},
			"cloud.availability_zone=eu-central-1b cloud.provider=aws cloud.region=eu-central-1 host.id=i-7 kai.cluster=kai kai.zone=eu-central-1b service.instance.id=n1"},
	} {
		if got := text(tt.self); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
}
