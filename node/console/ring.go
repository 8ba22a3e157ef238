package console

import "time"

// Ring is who holds how much, as the answering node knows it: what /api/ring answers.
type Ring struct {
	NodeID  string  `json:"node_id"`
	Cluster Cluster `json:"cluster"`
	// Nodes are all that are known or hold something, sorted by id.
	Nodes []RingNode `json:"nodes"`
	// Mean is how many partitions a node of weight 1 should hold; 0 if nobody can say who should hold any.
	Mean            float64         `json:"mean"`
	UnderReplicated UnderReplicated `json:"under_replicated"`
	Lost            int             `json:"lost,omitempty"`
	Recoveries      Recoveries      `json:"recoveries"`
	Transfer        Transfer        `json:"transfer"`
}

// The states of a node.
const (
	NodeAlive = "alive"
	// NodeDraining hands over what it holds.
	NodeDraining = "draining"
	// NodeJoining has no slot yet, and holds nothing.
	NodeJoining = "joining"
	NodeDead    = "dead"
)

// RingNode is one node's part of the ring.
type RingNode struct {
	ID        string  `json:"id"`
	PeerAddr  string  `json:"peer_addr"`
	AdminAddr string  `json:"admin_addr"`
	Zone      string  `json:"zone"`
	Slot      int     `json:"slot"`
	Weight    float64 `json:"weight"`
	State     string  `json:"state"`
	// LastSeen is when the answering node last saw a dead node alive, or when it began to look; ReplacedAt when others
	// take over what it holds, if there are enough.
	LastSeen   *time.Time `json:"last_seen,omitempty"`
	ReplacedAt *time.Time `json:"replaced_at,omitempty"`
	// Partitions counts those the node is a member of, Favoured those that favour it as coordinator.
	Partitions int `json:"partitions"`
	Favoured   int `json:"favoured"`
	// Share is Partitions by what it should hold, by its weight; 0 for a node that should hold nothing.
	Share float64 `json:"share"`
	// In and Out count replicas that have yet to arrive, and to leave: on their way or planned.
	In  int `json:"in"`
	Out int `json:"out"`
}

// PlanQuery asks what would move, if.
type PlanQuery struct {
	// Without names nodes that are to be taken out: ids, beginnings of ids, or addresses of theirs.
	Without []string
	// With is how many nodes are to be added, of weight Weight (1 if it is 0), in the Zones in turn. Without Zones each
	// goes where the fewest nodes are.
	With   int
	Zones  []string
	Weight float64
}

// MaxWith bounds PlanQuery.With.
const MaxWith = 1000

// Plan says what would move.
type Plan struct {
	NodeID string     `json:"node_id"`
	Nodes  []PlanNode `json:"nodes"`
	// Impossible says why nothing would move; empty if something may.
	Impossible string `json:"impossible,omitempty"`
	// Partitions would move, Replicas of them be transferred, in about Bytes; AtOnce partitions at a time.
	Partitions int   `json:"partitions"`
	Replicas   int   `json:"replicas"`
	Bytes      int64 `json:"bytes"`
	AtOnce     int   `json:"at_once"`
	// Seconds is an estimate by the rate of late; negative: there is none.
	Seconds float64 `json:"seconds"`
}

// What becomes of a node by a plan.
const (
	PlanStays  = "stays"
	PlanComes  = "new"
	PlanLeaves = "leaves"
)

// PlanNode is what a plan changes for one node.
type PlanNode struct {
	ID     string  `json:"id"`
	Addr   string  `json:"addr"`
	Zone   string  `json:"zone"`
	Weight float64 `json:"weight"`
	Fate   string  `json:"fate"`
	// Partitions held and favoured, now and then.
	Before         int `json:"before"`
	After          int `json:"after"`
	FavouredBefore int `json:"favoured_before"`
	FavouredAfter  int `json:"favoured_after"`
	// In and Out count replicas.
	In  int `json:"in"`
	Out int `json:"out"`
}

// Drain says how far a node is with handing over.
type Drain struct {
	NodeID string `json:"node_id"`
	// Asked: it is to hold nothing. It is not remembered beyond a restart.
	Asked bool `json:"asked"`
	// Partitions it holds still.
	Partitions int `json:"partitions"`
	// Reason says why nobody can take them; empty if others can.
	Reason string `json:"reason,omitempty"`
}
