package placement

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"kai/node/message"
	"kai/node/ring"
)

const (
	// askedAtOnce is how many partitions one message asks about.
	askedAtOnce = 8192
	// newerBytes bounds an answer; who was behind by more asks again.
	newerBytes = 128 << 10
)

// Newer answers a message.Configurations: those that are newer than the asker's, each as partition (4),
// length (2), encoding; as many as fit.
func Newer(call *message.Call, partitions int, configuration func(ring.Partition) ring.Configuration) {
	call.Reply = message.Reply{Status: message.OK}
	epochs := call.Request.Items
	if len(epochs)%4 != 0 || len(epochs)/4 > partitions || int(call.Partition) > partitions-len(epochs)/4 {
		call.Reply.Status = message.Invalid
		return
	}
	var newer []byte
	for i := 0; i < len(epochs) && len(newer) < newerBytes; i += 4 {
		p := call.Partition + ring.Partition(i/4)
		c := configuration(p)
		if c.Epoch <= binary.LittleEndian.Uint32(epochs[i:]) {
			continue
		}
		newer = binary.LittleEndian.AppendUint32(newer, uint32(p))
		at := len(newer)
		newer = AppendConfiguration(append(newer, 0, 0), c)
		binary.LittleEndian.PutUint16(newer[at:], uint16(len(newer)-at-2))
	}
	call.Reply.Items = newer
}

// groupSize is how many partitions have one digest. With the most partitions that there may be, a node
// sends 2 KiB to learn that nothing is new, and 1 KiB for each group in which something is.
const groupSize = 256

// AppendDigests appends what a message.Digests asks with: for each group of partitions 8 bytes, a hash of
// their epochs. There is one configuration of an epoch, so that equal epochs are equal configurations.
func AppendDigests(b []byte, partitions int, configuration func(ring.Partition) ring.Configuration) []byte {
	epochs := make([]byte, 0, 4*groupSize)
	for first := 0; first < partitions; first += groupSize {
		epochs = appendEpochs(epochs[:0], first, min(first+groupSize, partitions), configuration)
		b = binary.LittleEndian.AppendUint64(b, ring.Hash(epochs))
	}
	return b
}

func appendEpochs(b []byte, first, end int, configuration func(ring.Partition) ring.Configuration) []byte {
	for p := first; p < end; p++ {
		b = binary.LittleEndian.AppendUint32(b, configuration(ring.Partition(p)).Epoch)
	}
	return b
}

// Differing answers a message.Digests: the numbers of the groups, 2 bytes each, of which this node knows
// other epochs than the asker; older ones, perhaps.
func Differing(call *message.Call, partitions int, configuration func(ring.Partition) ring.Configuration) {
	own := AppendDigests(nil, partitions, configuration)
	if len(call.Request.Items) != len(own) {
		call.Reply = message.Reply{Status: message.Invalid}
		return
	}
	var differ []byte
	for at := 0; at < len(own); at += 8 {
		if !bytes.Equal(own[at:at+8], call.Request.Items[at:at+8]) {
			differ = binary.LittleEndian.AppendUint16(differ, uint16(at/8))
		}
	}
	call.Reply = message.Reply{Status: message.OK, Items: differ}
}

// learnFrom adopts what a node knows of newer configurations, and tells whether that is all. Words of
// new configurations get lost, and a node that was away, or is new, was told nothing.
func (m *Mover) learnFrom(id ring.NodeID) (all bool, err error) {
	q := message.Request{Kind: message.Digests, Items: AppendDigests(nil, m.o.Partitions, m.o.Configuration)}
	reply := m.send(id, q)
	if reply.Status == message.Unsupported {
		return false, errOlder
	}
	if reply.Status != message.OK {
		return false, fmt.Errorf("node %s does not tell its digests: %s", id, reply.Status)
	}
	all = true
	for differ := reply.Items; len(differ) >= 2; {
		first := int(binary.LittleEndian.Uint16(differ))
		end := first
		for len(differ) >= 2 && int(binary.LittleEndian.Uint16(differ)) == end {
			differ, end = differ[2:], end+1
		}
		told, err := m.learnRange(id, first*groupSize, min(end*groupSize, m.o.Partitions))
		if err != nil {
			return false, err
		}
		all = all && told
	}
	return all, nil
}

// learnRange is learnFrom for the partitions from first up to end.
func (m *Mover) learnRange(id ring.NodeID, first, end int) (all bool, err error) {
	all = true
	for ; first < end; first += askedAtOnce {
		epochs := appendEpochs(nil, first, min(first+askedAtOnce, end), m.o.Configuration)
		reply := m.send(id, message.Request{Kind: message.Configurations, Partition: ring.Partition(first), Items: epochs})
		if reply.Status != message.OK {
			return false, fmt.Errorf("node %s does not tell its configurations: %s", id, reply.Status)
		}
		all = all && len(reply.Items) == 0
		if err := m.adoptAll(reply.Items); err != nil {
			return false, fmt.Errorf("configurations of node %s: %w", id, err)
		}
	}
	return all, nil
}

func (m *Mover) adoptAll(newer []byte) error {
	for len(newer) > 0 {
		if len(newer) < 6 || len(newer)-6 < int(binary.LittleEndian.Uint16(newer[4:])) {
			return ErrCorrupt
		}
		p, n := binary.LittleEndian.Uint32(newer), int(binary.LittleEndian.Uint16(newer[4:]))
		c, err := DecodeConfiguration(newer[6 : 6+n])
		if err != nil || int64(p) >= int64(m.o.Partitions) {
			return fmt.Errorf("partition %d: %w", p, err)
		}
		m.o.Adopt(ring.Partition(p), c)
		newer = newer[6+n:]
	}
	return nil
}

// Learn asks one node for newer configurations, one after the other with each call, and adopts them; it remembers who has told all it
// knows. Run does so by itself. It blocks until that node has answered or Options.Timeout is over, without being run, too.
func (m *Mover) Learn() {
	if m.o.Everybody == nil {
		return
	}
	everybody := m.o.Everybody()
	m.mu.Lock()
	m.next++
	// Whom it has not heard of first.
	var ask ring.NodeID
	for i := range everybody {
		id := everybody[(m.next+i)%len(everybody)]
		if id == m.o.Self {
			continue
		}
		if !m.heard[id] && !m.older[id] {
			ask = id
			break
		}
		if ask == "" {
			ask = id
		}
	}
	m.mu.Unlock()
	if ask == "" {
		return
	}
	all, err := m.learnFrom(ask)
	m.mu.Lock()
	if errors.Is(err, errOlder) {
		m.older[ask] = true
		delete(m.heard, ask)
	} else {
		delete(m.older, ask)
	}
	m.mu.Unlock()
	if err != nil {
		m.o.Logger.Debug("configurations not learnt", "error", err)
		return
	}
	if all {
		m.mu.Lock()
		m.heard[ask] = true
		m.mu.Unlock()
	}
}

// errOlder: a node's build is too old to know of configurations that change. As long as there is one nothing moves.
var errOlder = errors.New("its build is older and knows of no moves")

// curious reports that there is a node that this one has not heard of yet, and may at any moment.
func (m *Mover) curious() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range m.o.Everybody() {
		if id != m.o.Self && !m.heard[id] && !m.older[id] {
			return true
		}
	}
	return false
}

// informed reports that every live node has told this one, since its start, all that it knew. A plan
// that is made of old configurations would be nonsense.
func (m *Mover) informed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range m.o.Everybody() {
		if id != m.o.Self && !m.heard[id] {
			return false
		}
	}
	return true
}
