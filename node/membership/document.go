package membership

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"kai/node/ring"
)

// settings are fixed for a cluster at its founding.
type settings struct {
	Quorum             ring.Quorum
	Partitions, VNodes int
}

func (s settings) String() string {
	return fmt.Sprintf("quorum %s, partitions %d, vnodes %d", s.Quorum, s.Partitions, s.VNodes)
}

const maxVNodes = 4096

const clusterIDOfFullLength = "00000000000000000000000000000000"

func newClusterID() string {
	var b [16]byte
	rand.Read(b[:]) //nolint:errcheck // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

func isHex(s string, length int) bool {
	return len(s) == length && strings.Trim(s, "0123456789abcdef") == ""
}

func validID(id ring.NodeID) bool { return isHex(string(id), 16) }

func settingsOf(f *ring.Founding) settings { return settings{f.Quorum, f.Partitions, f.VNodes} }

func isFounder(f *ring.Founding, id ring.NodeID) bool {
	return slices.ContainsFunc(f.Nodes, func(n ring.Node) bool { return n.ID == id })
}

func equalFounding(a, b *ring.Founding) bool {
	return a.ClusterID == b.ClusterID && a.Generation == b.Generation && a.Name == b.Name &&
		settingsOf(a) == settingsOf(b) && slices.Equal(a.Nodes, b.Nodes) && a.Claimed == b.Claimed && a.Snapshot == b.Snapshot
}

// checkFounding refuses documents that no proposer of this build writes, whether they come from
// the network or from disk.
func checkFounding(f *ring.Founding) error {
	switch {
	case !isHex(f.ClusterID, len(clusterIDOfFullLength)):
		return fmt.Errorf("cluster id %q is not %d hex digits", f.ClusterID, len(clusterIDOfFullLength))
	case len(f.Nodes) < 1 || len(f.Nodes) > maxExpect:
		return fmt.Errorf("%d founding nodes, possible are 1 to %d", len(f.Nodes), maxExpect)
	case f.Partitions < 1 || f.Partitions > ring.MaxPartitions || f.Partitions&(f.Partitions-1) != 0:
		return fmt.Errorf("%d partitions", f.Partitions)
	case f.VNodes < 1 || f.VNodes > maxVNodes:
		return fmt.Errorf("%d vnodes", f.VNodes)
	case f.Name == "" || len(f.Name) > maxCluster:
		return errors.New("bad cluster name")
	}
	for i, n := range f.Nodes {
		if !validID(n.ID) || i > 0 && f.Nodes[i-1].ID >= n.ID || len(n.Zone) > maxText {
			return fmt.Errorf("founding node %d: bad or out of order: %q", i, n.ID)
		}
	}
	return f.Quorum.Check()
}

// disagreement is the error of a node whose settings are not those of the cluster.
func disagreement(f *ring.Founding, own settings) error {
	return fmt.Errorf("this node is configured with %s, but cluster %s (%q) was founded with %s: cluster-wide settings are fixed at founding; configure this node with the cluster's values",
		own, f.ClusterID, f.Name, settingsOf(f))
}
