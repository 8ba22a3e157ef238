package ring

// Founding is the act that made a cluster: written once, agreed by all founding nodes, kept on
// every node's disk. The first configurations follow from it (see PreferenceLists).
type Founding struct {
	// ClusterID is random; clusters with different ids never merge.
	ClusterID  string `json:"cluster_id"`
	Generation uint32 `json:"generation"`
	// Name is KAI_CLUSTER, for people.
	Name       string `json:"name"`
	Quorum     Quorum `json:"quorum"`
	Partitions int    `json:"partitions"`
	VNodes     int    `json:"vnodes"`
	// Nodes are the founders; a node's index is its slot.
	Nodes []Node `json:"nodes"`
	// Claimed: it counts only if it is registered as the founding of its generation.
	Claimed bool `json:"claimed,omitempty"`
	// Snapshot is what the cluster begins with; empty: with nothing.
	Snapshot string `json:"snapshot,omitempty"`
}

// NodeInfo is what gossip tells of a node.
type NodeInfo struct {
	Node
	// PeerAddr, GossipAddr and AdminAddr are host:port, as others reach them.
	PeerAddr   string
	GossipAddr string
	AdminAddr  string
	// Version of the build.
	Version string
	// ClusterID the node belongs to; empty before founding.
	ClusterID string
	// Boot counts the starts of the node's data directory.
	Boot uint64
	// Process is a random number of the process: two starts that bear one boot count differ in it. 0: not
	// known.
	Process uint64
	Alive   bool
	// Slot is the node's number in ballots and versions; -1 as long as it has none, or none is known.
	// A node without a slot holds no partition.
	Slot int
	// Weight is how much the node is to hold; 0 as long as none is known.
	Weight Weight
	// Draining: the node hands over what it holds, and is to get nothing.
	Draining bool
}

// View is an immutable picture of the nodes, sorted by id. Serial grows with each new view of this
// process. Dead nodes stay in it (Alive false) as long as gossip or the founding remembers them.
type View struct {
	Serial uint64
	Self   NodeID
	Nodes  []NodeInfo
}

// Find returns the node with that id.
func (v *View) Find(id NodeID) (NodeInfo, bool) {
	for _, n := range v.Nodes {
		if n.ID == id {
			return n, true
		}
	}
	return NodeInfo{}, false
}
