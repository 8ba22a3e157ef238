package console

// Transfer says how moves of partitions go, in the whole cluster.
type Transfer struct {
	// Moving and Planned count partitions: those on their way, AtOnce at most, and those that wait for it.
	Moving  int `json:"moving"`
	Planned int `json:"planned"`
	AtOnce  int `json:"at_once"`
	// LeftReplicas have yet to arrive at nodes; LeftBytes is about what that takes.
	LeftReplicas int   `json:"left_replicas"`
	LeftBytes    int64 `json:"left_bytes"`
	// SecondsLeft is an estimate, by what arrived of late; negative: there is nothing to go by.
	SecondsLeft float64 `json:"seconds_left"`
	// Rates of the last seconds. While nothing moves they, and the counts below, are the answering node's alone.
	BytesPerSecond    float64 `json:"bytes_per_second"`
	ReplicasPerSecond float64 `json:"replicas_per_second"`
	// Partitions, Records and Bytes were taken over from other nodes, since the start of the node that did.
	Partitions uint64 `json:"partitions"`
	Records    uint64 `json:"records"`
	Bytes      uint64 `json:"bytes"`
	// Silent counts live nodes that did not tell theirs in time.
	Silent int `json:"silent,omitempty"`
}
