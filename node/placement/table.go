// Package placement keeps the configurations of all partitions: who holds what, at which epoch.
package placement

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"kai/node/ring"
)

// Table holds the newest configuration this node knows of every partition. Readers load one
// immutable snapshot and never wait; writers are few and take turns.
//
// A Table is a node's knowledge, not the truth: a partition's members decide its configurations
// among themselves, everybody else adopts what they hear (CONSISTENCY: "Who owns a partition").
type Table struct {
	founding ring.Founding
	observe  func(ring.Partition, ring.Configuration)

	write    sync.Mutex // taken by Adopt; orders the observer's calls
	snapshot atomic.Pointer[Snapshot]
}

// Snapshot is the configurations of all partitions at one moment. They lie in pages, so that a new one
// costs a copy of its page, and of the list of pages, not of all (65,536 partitions: 4 KiB for 512).
type Snapshot struct {
	pages []*page
	len   int
}

const pageSize = 256

type page [pageSize]*ring.Configuration

// Configurations returns the first configurations of a cluster, all of epoch 1, by partition. They
// are the same on every node: a pure function of the founding.
func Configurations(f ring.Founding) []ring.Configuration {
	lists := ring.PreferenceLists(f.Nodes, f.Partitions, f.Quorum.N, f.VNodes)
	configurations := make([]ring.Configuration, len(lists))
	for p, members := range lists {
		configurations[p] = ring.Configuration{Epoch: 1, Members: members}
	}
	return configurations
}

// New returns a table of the configurations, by partition (from disk, or from Configurations); it
// keeps them: the caller must not change them afterwards. observe is called for each configuration
// adopted later, before Adopt returns, in order; it must not call Adopt; nil for none.
func New(f ring.Founding, configurations []ring.Configuration, observe func(ring.Partition, ring.Configuration)) (*Table, error) {
	if len(configurations) != f.Partitions {
		return nil, fmt.Errorf("placement: %d configurations for %d partitions", len(configurations), f.Partitions)
	}
	snapshot := Snapshot{make([]*page, (len(configurations)+pageSize-1)/pageSize), len(configurations)}
	for i := range snapshot.pages {
		snapshot.pages[i] = new(page)
	}
	for p := range configurations {
		if err := check(configurations[p]); err != nil {
			return nil, fmt.Errorf("placement: partition %d: %w", p, err)
		}
		*snapshot.at(ring.Partition(p)) = &configurations[p]
	}
	if observe == nil {
		observe = func(ring.Partition, ring.Configuration) {}
	}
	t := &Table{founding: f, observe: observe}
	t.snapshot.Store(&snapshot)
	return t, nil
}

// Founding of the cluster the table belongs to.
func (t *Table) Founding() ring.Founding { return t.founding }

// Partitions is how many there are.
func (t *Table) Partitions() int { return t.founding.Partitions }

// Configuration returns the newest known configuration of p, which must be below Partitions. Its
// slices must not be changed.
func (t *Table) Configuration(p ring.Partition) ring.Configuration {
	return t.snapshot.Load().At(p)
}

// Snapshot returns what the table holds now; it does not change any more.
func (t *Table) Snapshot() Snapshot { return *t.snapshot.Load() }

// Len is the number of partitions.
func (s Snapshot) Len() int { return s.len }

// At returns the configuration of p, which must be below Len.
func (s Snapshot) At(p ring.Partition) ring.Configuration { return **s.at(p) }

func (s Snapshot) at(p ring.Partition) **ring.Configuration { return &s.pages[p/pageSize][p%pageSize] }

// with is s with c for p.
func (s Snapshot) with(p ring.Partition, c *ring.Configuration) Snapshot {
	changed := *s.pages[p/pageSize]
	changed[p%pageSize] = c
	s.pages = slices.Clone(s.pages)
	s.pages[p/pageSize] = &changed
	return s
}

// Adopt puts c in place if its epoch is newer than the known one, and reports whether it did. It
// refuses partitions that do not exist and configurations that no cluster could have. It keeps c.
// Safe for concurrent use; blocks as long as the observer does.
func (t *Table) Adopt(p ring.Partition, c ring.Configuration) bool {
	if int64(p) >= int64(t.Partitions()) || check(c) != nil || t.Configuration(p).Epoch >= c.Epoch {
		return false
	}
	t.write.Lock()
	defer t.write.Unlock()
	old := *t.snapshot.Load()
	if old.At(p).Epoch >= c.Epoch {
		return false
	}
	snapshot := old.with(p, &c)
	t.snapshot.Store(&snapshot)
	t.observe(p, c)
	return true
}

// check refuses what cannot be a configuration; also the decoder's last word.
func check(c ring.Configuration) error {
	switch {
	case c.Epoch == 0:
		return fmt.Errorf("configuration of epoch 0")
	case len(c.Members) == 0:
		return fmt.Errorf("configuration %d has no members", c.Epoch)
	case len(c.Members) > ring.MaxReplicas || len(c.Next) > ring.MaxReplicas:
		return fmt.Errorf("configuration %d has %d and %d members, at most %d", c.Epoch, len(c.Members), len(c.Next), ring.MaxReplicas)
	}
	for _, ids := range [][]ring.NodeID{c.Members, c.Next} {
		for i, id := range ids {
			if id == "" || len(id) > maxID || slices.Contains(ids[:i], id) {
				return fmt.Errorf("configuration %d: bad or repeated node id %q", c.Epoch, id)
			}
		}
	}
	return nil
}
