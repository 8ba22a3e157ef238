package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"kai/node/ring"
)

// meta is what a node gossips about itself, in at most 512 bytes (memberlist's limit).
type meta struct {
	Boot      uint64
	Settings  settings
	Expect    int
	ClusterID string // empty before founding
	Zone      string
	PeerAddr  string
	AdminAddr string
	Version   string
	Slot      int // -1 before the node has one
	Draining  bool
	Process   uint64      // 0: not told
	Weight    ring.Weight // 0: it says none
}

const (
	metaVersion = 1
	// flagDraining is a bit of the flags.
	flagDraining = 1
	maxText      = 255 // bytes of a text in meta
)

var errMeta = errors.New("gossiped node data is malformed")

// appendMeta encodes: version byte; N, R, W a byte each; then uvarints boot, partitions, vnodes,
// expect; then texts, each with its length before it; then uvarints: one more than the slot, flags (1:
// draining), the process, and the weight. Later builds may append fields.
func appendMeta(b []byte, m meta) []byte {
	b = append(b, metaVersion, byte(m.Settings.Quorum.N), byte(m.Settings.Quorum.R), byte(m.Settings.Quorum.W))
	for _, n := range []uint64{m.Boot, uint64(m.Settings.Partitions), uint64(m.Settings.VNodes), uint64(m.Expect)} {
		b = binary.AppendUvarint(b, n)
	}
	for _, s := range []string{m.ClusterID, m.Zone, m.PeerAddr, m.AdminAddr, m.Version} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	flags := uint64(0)
	if m.Draining {
		flags = flagDraining
	}
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(m.Slot+1)), flags)
	b = binary.AppendUvarint(b, m.Process)
	return binary.AppendUvarint(b, uint64(m.Weight))
}

// parseMeta decodes; it ignores fields appended by later builds.
func parseMeta(b []byte) (meta, error) {
	var m meta
	if len(b) < 4 {
		return m, errMeta
	}
	if b[0] != metaVersion {
		return m, fmt.Errorf("gossiped node data has format %d, this build reads %d", b[0], metaVersion)
	}
	m.Settings.Quorum = ring.Quorum{N: int(b[1]), R: int(b[2]), W: int(b[3])}
	b = b[4:]
	var partitions, vnodes, expect uint64
	for _, n := range []*uint64{&m.Boot, &partitions, &vnodes, &expect} {
		v, size := binary.Uvarint(b)
		if size <= 0 {
			return meta{}, errMeta
		}
		*n, b = v, b[size:]
	}
	if partitions > ring.MaxPartitions || vnodes > maxVNodes || expect > maxExpect {
		return meta{}, errMeta
	}
	m.Settings.Partitions, m.Settings.VNodes, m.Expect = int(partitions), int(vnodes), int(expect)
	for _, s := range []*string{&m.ClusterID, &m.Zone, &m.PeerAddr, &m.AdminAddr, &m.Version} {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > maxText || n > uint64(len(b)-size) {
			return meta{}, errMeta
		}
		*s, b = string(b[size:size+int(n)]), b[size+int(n):]
	}
	m.Slot = -1
	if len(b) > 0 { // builds before this field say nothing
		slot, size := binary.Uvarint(b)
		if size <= 0 || slot > math.MaxUint16 {
			return meta{}, errMeta
		}
		b = b[size:]
		flags, size := binary.Uvarint(b)
		if size <= 0 {
			return meta{}, errMeta
		}
		m.Slot, m.Draining = int(slot)-1, flags&flagDraining != 0
		b = b[size:]
	}
	if len(b) > 0 { // nor of a process
		process, size := binary.Uvarint(b)
		if size <= 0 {
			return meta{}, errMeta
		}
		m.Process = process
		b = b[size:]
	}
	if len(b) > 0 { // nor of a weight
		weight, size := binary.Uvarint(b)
		if size <= 0 || weight != 0 && (weight < uint64(ring.MinWeight) || weight > uint64(ring.MaxWeight)) {
			return meta{}, errMeta
		}
		m.Weight = ring.Weight(weight)
	}
	if m.ClusterID != "" && !isHex(m.ClusterID, len(clusterIDOfFullLength)) {
		return meta{}, errMeta
	}
	return m, nil
}
