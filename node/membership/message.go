package membership

import (
	"encoding/json"
	"errors"
	"fmt"

	"kai/node/ring"
)

// kind of a message of the founding protocol; see DESIGN.md.
type kind string

const (
	propose  kind = "propose"  // proposer → listed node: vote for Founding
	voted    kind = "voted"    // listed node → proposer: ClusterID has my vote; how does it stand?
	released kind = "released" // proposer → voter: ClusterID is abandoned
	rival    kind = "rival"    // to a proposer: Proposer's proposal stands against yours
	founded  kind = "founded"  // anyone → anyone: Founding is decided
	ask      kind = "ask"      // unfounded → founded node: what are you founded on?
	outdated kind = "outdated" // anyone → node: your id was seen with boot count Boot, of Process
)

// message is one message; fields not named with its kind are empty.
type message struct {
	Kind      kind           `json:"kind"`
	From      ring.NodeID    `json:"from"`
	Proposer  ring.NodeID    `json:"proposer,omitempty"`
	ClusterID string         `json:"cluster_id,omitempty"`
	Founding  *ring.Founding `json:"founding,omitempty"`
	Boot      uint64         `json:"boot,omitempty"`
	Process   uint64         `json:"process,omitempty"`
}

const (
	messageVersion = 1
	maxMessage     = 256 << 10 // a founding of maxExpect nodes takes a third
)

// encodeMessage writes a version byte and JSON: there are a few messages in the life of a cluster,
// and one day someone will read them in a packet dump.
func encodeMessage(m message) []byte {
	b, err := json.Marshal(m)
	if err != nil { // strings and numbers only
		return nil
	}
	return append([]byte{messageVersion}, b...)
}

func decodeMessage(b []byte) (message, error) {
	var m message
	if len(b) < 1 || len(b) > maxMessage {
		return m, fmt.Errorf("message of %d bytes", len(b))
	}
	if b[0] != messageVersion {
		return m, fmt.Errorf("message of format %d, this build reads %d", b[0], messageVersion)
	}
	if err := json.Unmarshal(b[1:], &m); err != nil {
		return message{}, fmt.Errorf("message: %w", err)
	}
	if !validID(m.From) || m.Proposer != "" && !validID(m.Proposer) {
		return message{}, errors.New("message: bad node id")
	}
	needsFounding, needsCluster := m.Kind == propose || m.Kind == founded, m.Kind == voted || m.Kind == released
	if needsFounding {
		if m.Founding == nil {
			return message{}, errors.New("message: founding missing")
		}
		if err := checkFounding(m.Founding); err != nil {
			return message{}, fmt.Errorf("message: founding: %w", err)
		}
	}
	if needsCluster && m.ClusterID == "" || m.Kind == rival && m.Proposer == "" {
		return message{}, errors.New("message: field missing")
	}
	return m, nil
}
