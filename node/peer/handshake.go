package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"kai/node/message"
	"kai/node/ring"
)

// Control frames of this room.
const (
	typeHello  = message.TypeControl
	typeRefuse = message.TypeControl + 1
	typePing   = message.TypeControl + 2
	typePong   = message.TypeControl + 3
)

const (
	magic    = "KAI"
	maxHello = 2048 // bytes; a stranger gets no larger buffer out of us
	maxName  = 255
)

// Identity is who a node says it is.
type Identity struct {
	Node ring.NodeID
	// Boot counts the starts of the node's data directory.
	Boot uint64
	// Process is a random number of this start; 0 if not known (builds before this field).
	Process uint64
	// ClusterID is empty before founding: the node takes no connections then and makes none.
	ClusterID string
	// Cluster is the name for people.
	Cluster string
}

// Code says why a handshake was refused: a closed set.
type Code uint8

const (
	// NotFounded: one side has no cluster id yet. It may come right by itself.
	NotFounded Code = 1 + iota
	// WrongCluster: two clusters met; they never merge.
	WrongCluster
	// WrongNode: another node lives at that address now.
	WrongNode
	// SameNode: both sides have the same node id, so one is a copy of the other's data directory.
	SameNode
	// NoVersion: no protocol version in common.
	NoVersion
	// NotAdmitted: ServerOptions.Admit or ClientOptions.Admit said no.
	NotAdmitted
	// Full: too many connections.
	Full
	numCodes
)

var codeNames = [numCodes]string{"none", "not_founded", "wrong_cluster", "wrong_node", "same_node", "no_version", "not_admitted", "full"}

func (c Code) String() string {
	if c < numCodes {
		return codeNames[c]
	}
	return "unknown"
}

// RefusedError is a handshake that one side ended, and why.
type RefusedError struct {
	Code Code
	Text string
	// Remote: the other side refused; otherwise this one did.
	Remote bool
}

func (e *RefusedError) Error() string {
	if e.Remote {
		return "refused by the peer: " + e.Text
	}
	return "refused: " + e.Text
}

// hello is what each side says first. expect is the node that the client wants to talk to; version
// is the server's choice.
type hello struct {
	low, high, version uint8
	id                 Identity
	expect             ring.NodeID
}

// versions this build speaks, oldest and newest.
var versions = [2]uint8{message.Oldest, message.Newest}

func appendHello(dst []byte, h *hello) []byte {
	b := append(make([]byte, 0, 128), magic...)
	b = append(b, h.low, h.high, h.version)
	b = binary.LittleEndian.AppendUint64(b, h.id.Boot)
	for _, s := range []string{h.id.ClusterID, string(h.id.Node), string(h.expect), h.id.Cluster} {
		s = s[:min(len(s), maxName)]
		b = append(append(b, byte(len(s))), s...)
	}
	b = binary.LittleEndian.AppendUint64(b, h.id.Process)
	return message.AppendControl(dst, typeHello, 0, b)
}

var errNotKai = errors.New("not a Kai peer, or not its peer port")

// parseHello accepts fields it does not know behind those it does: that is how hello grows.
func parseHello(b []byte) (h hello, err error) {
	const fixed = len(magic) + 3 + 8
	if len(b) < fixed || string(b[:len(magic)]) != magic {
		return h, errNotKai
	}
	h.low, h.high, h.version = b[3], b[4], b[5]
	h.id.Boot = binary.LittleEndian.Uint64(b[6:])
	var names [4]string
	b = b[fixed:]
	for i := range names {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return h, errNotKai
		}
		n := 1 + int(b[0])
		names[i], b = string(b[1:n]), b[n:]
	}
	h.id.ClusterID, h.id.Cluster = names[0], names[3]
	h.id.Node, h.expect = ring.NodeID(names[1]), ring.NodeID(names[2])
	if len(b) >= 8 { // builds before this field say nothing
		h.id.Process = binary.LittleEndian.Uint64(b)
	}
	return h, nil
}

func appendRefuse(dst []byte, e *RefusedError) []byte {
	body := append([]byte{byte(e.Code)}, e.Text[:min(len(e.Text), 1024)]...)
	return message.AppendControl(dst, typeRefuse, 0, body)
}

// receive reads one handshake frame.
func receive(in *inbox) (hello, error) {
	for {
		frame, err := in.next()
		if err != nil {
			return hello{}, fmt.Errorf("%w: %w", errNotKai, err)
		}
		if frame == nil {
			if err := in.fill(); err != nil {
				return hello{}, err
			}
			continue
		}
		head, err := message.ParseHead(frame)
		body := message.Body(frame)
		switch {
		case err != nil:
			return hello{}, fmt.Errorf("%w: %w", errNotKai, err)
		case head.Type == typeHello:
			return parseHello(body)
		case head.Type == typeRefuse && len(body) > 0:
			return hello{}, &RefusedError{Code: Code(body[0]), Text: strings.ToValidUTF8(string(body[1:]), "?"), Remote: true}
		}
		return hello{}, fmt.Errorf("%w: frame type %d in a handshake", errNotKai, head.Type)
	}
}

// judge is what both sides check about each other; mine and theirs as seen from who asks.
func judge(mine, theirs *Identity) *RefusedError {
	refuse := func(c Code, format string, args ...any) *RefusedError {
		return &RefusedError{Code: c, Text: fmt.Sprintf(format, args...)}
	}
	switch {
	case mine.ClusterID == "":
		return refuse(NotFounded, "node %s belongs to no cluster yet (not founded)", mine.Node)
	case theirs.ClusterID == "":
		return refuse(NotFounded, "node %s belongs to no cluster yet (not founded)", theirs.Node)
	case mine.ClusterID != theirs.ClusterID:
		return refuse(WrongCluster, "node %s is in cluster %q (id %s), node %s in cluster %q (id %s): clusters never merge",
			mine.Node, mine.Cluster, mine.ClusterID, theirs.Node, theirs.Cluster, theirs.ClusterID)
	case mine.Node == theirs.Node:
		return refuse(SameNode, "both nodes have id %s: is one data directory a copy of the other?", mine.Node)
	}
	return nil
}

// ask asks admit, if there is one, for its word on a node.
func ask(admit func(Identity) error, id Identity) (no *RefusedError) {
	if admit == nil {
		return nil
	}
	if err := admit(id); err != nil && !errors.As(err, &no) {
		no = &RefusedError{Code: NotAdmitted, Text: err.Error()}
	}
	return no
}

// greet is the client's side: it says hello, judges the answer, and returns the version that was agreed on; admit may be nil.
func greet(conn net.Conn, in *inbox, mine Identity, expect ring.NodeID, admit func(Identity) error, speak [2]uint8, timeout time.Duration) (version uint8, err error) {
	if mine.ClusterID == "" {
		return 0, judge(&mine, &mine)
	}
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	out := appendHello(nil, &hello{low: speak[0], high: speak[1], id: mine, expect: expect})
	if _, err := conn.Write(out); err != nil {
		return 0, err
	}
	theirs, err := receive(in)
	if err != nil {
		return 0, err
	}
	no := judge(&mine, &theirs.id)
	if no == nil && theirs.id.Node != expect {
		no = &RefusedError{Code: WrongNode, Text: fmt.Sprintf("node %s answers where %s was expected", theirs.id.Node, expect)}
	}
	if no == nil && (theirs.version < speak[0] || theirs.version > speak[1]) {
		no = &RefusedError{Code: NoVersion, Text: fmt.Sprintf("node %s chose protocol version %d out of %d to %d", theirs.id.Node, theirs.version, speak[0], speak[1])}
	}
	if no == nil {
		no = ask(admit, theirs.id)
	}
	if no != nil {
		_, _ = conn.Write(appendRefuse(nil, no)) // for the other side's log
		return 0, no
	}
	return theirs.version, conn.SetDeadline(time.Time{})
}

// welcome is the server's side: it judges the client's hello and answers it.
func welcome(conn net.Conn, in *inbox, identity func() Identity, admit func(Identity) error, speak [2]uint8, timeout time.Duration) (Identity, error) {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return Identity{}, err
	}
	theirs, err := receive(in)
	if err != nil {
		return Identity{}, err
	}
	mine := identity()
	version := min(theirs.high, speak[1])
	no := judge(&mine, &theirs.id)
	switch {
	case no != nil:
	case theirs.expect != mine.Node:
		no = &RefusedError{Code: WrongNode, Text: fmt.Sprintf("node %s lives here, %s was expected", mine.Node, theirs.expect)}
	case version < max(theirs.low, speak[0]):
		no = &RefusedError{Code: NoVersion, Text: fmt.Sprintf("node %s speaks protocol versions %d to %d, node %s %d to %d",
			mine.Node, speak[0], speak[1], theirs.id.Node, theirs.low, theirs.high)}
	default:
		no = ask(admit, theirs.id)
	}
	if no != nil {
		_, _ = conn.Write(appendRefuse(nil, no))
		return theirs.id, no
	}
	out := appendHello(nil, &hello{low: speak[0], high: speak[1], version: version, id: mine})
	if _, err := conn.Write(out); err != nil {
		return theirs.id, err
	}
	return theirs.id, conn.SetDeadline(time.Time{})
}
