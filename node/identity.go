package node

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"

	"kai/node/membership"
	"kai/node/ring"
)

// identity is who the data directory is. An empty directory becomes a new node; the id never
// changes afterwards, and the boot count grows with every start.
type identity struct {
	Format int         `json:"format"`
	Node   ring.NodeID `json:"node_id"`
	Boot   uint64      `json:"boot"`
	// Zone that the cloud told last; empty: none did.
	Zone string `json:"zone,omitempty"`
	// Process is a random number of this start: a disk that was set back by one start bears, when it
	// starts again, a boot count that peers have seen already.
	Process uint64 `json:"-"`
}

const (
	identityName   = "node.json"
	identityFormat = 1
	foundingName   = "founding.json"
)

// openIdentity reads or makes the identity and counts this start, durably.
func openIdentity(dir string) (identity, error) {
	path := filepath.Join(dir, identityName)
	var id identity
	switch found, err := readJSON(path, &id); {
	case err != nil:
		return id, err
	case !found:
		if found, err := exists(filepath.Join(dir, foundingName)); found || err != nil {
			return id, fmt.Errorf("%s is missing but %s is there: the data directory lost its identity; restore the file, or empty the directory to start as a new node", path, foundingName)
		}
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		id = identity{Format: identityFormat, Node: ring.NodeID(hex.EncodeToString(b[:]))}
	case id.Format != identityFormat:
		return id, fmt.Errorf("%s has format %d, this build reads %d: start it with the build that wrote it", path, id.Format, identityFormat)
	case len(id.Node) != 16:
		return id, fmt.Errorf("%s holds no valid node id; restore the file, or empty the data directory to start as a new node", path)
	}
	id.Boot++
	id.Process = 1 + mathrand.Uint64N(math.MaxUint64) // never 0
	return id, writeJSON(path, id)
}

// foundingFile keeps the founding state; it implements membership.FoundingStore.
type foundingFile struct{ dir string }

// Load implements membership.FoundingStore.
func (f foundingFile) Load() (s membership.FoundingState, err error) {
	_, err = readJSON(filepath.Join(f.dir, foundingName), &s)
	return s, err
}

// Save implements membership.FoundingStore.
func (f foundingFile) Save(s membership.FoundingState) error {
	return writeJSON(filepath.Join(f.dir, foundingName), s)
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func readJSON(path string, v any) (found bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("%s is damaged: %w; restore it from a copy, or empty the data directory to start as a new node", path, err)
	}
	return true, nil
}

// writeJSON replaces the file in one step, and returns when that is on disk.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
