package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// A cluster's name has generations: each is a cluster with an id of its own. The bucket says which cluster that is, so that no two found
// the same generation, and with which snapshot it ended:
//
//	clusters/<name>/<generation>/FOUNDED    the first to write it decides
//	clusters/<name>/<generation>/SEALED     so for this
const clustersDir = "clusters/"

// Founded says which cluster a generation is.
type Founded struct {
	Format     int       `json:"format"`
	Name       string    `json:"name"`
	Generation uint32    `json:"generation"`
	Cluster    string    `json:"cluster"` // id
	At         time.Time `json:"at"`
	// Founding is the owner's document of it.
	Founding json.RawMessage `json:"founding"`
}

// Sealed ends a generation: its nodes serve no more, and the next begins with the snapshot.
type Sealed struct {
	Format     int       `json:"format"`
	Generation uint32    `json:"generation"`
	Cluster    string    `json:"cluster"`
	Snapshot   string    `json:"snapshot"` // empty: with nothing
	At         time.Time `json:"at"`
	// Lost: an operator said that its nodes are lost, and with them what was written after the snapshot's cut.
	Lost bool `json:"lost,omitempty"`
}

func generationKey(name string, generation uint32, what string) string {
	return fmt.Sprintf("%s%s/%08d/%s", clustersDir, url.PathEscape(name), generation, what)
}

// Generations returns the newest generation of a cluster's name, and its seal, if it has one; nil, nil: there was none yet.
func Generations(ctx context.Context, b *Bucket, name string) (*Founded, *Sealed, error) {
	dir := clustersDir + url.PathEscape(name) + "/"
	newest := uint64(0)
	err := list(ctx, b, dir, true, func(o *blob.ListObject) error {
		n, err := strconv.ParseUint(strings.Trim(strings.TrimPrefix(o.Key, dir), "/"), 10, 32)
		if o.IsDir && err == nil {
			newest = max(newest, n)
		}
		return nil
	})
	if err != nil || newest == 0 {
		return nil, nil, err
	}
	var f Founded
	if err := document(ctx, b, generationKey(name, uint32(newest), "FOUNDED"), &f); err != nil {
		return nil, nil, err
	}
	s, err := SealOf(ctx, b, name, f.Generation)
	return &f, s, err
}

// SealOf returns the seal of a generation, or nil.
func SealOf(ctx context.Context, b *Bucket, name string, generation uint32) (*Sealed, error) {
	var s Sealed
	err := document(ctx, b, generationKey(name, generation, "SEALED"), &s)
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &s, nil
}

// Found registers f, and returns which cluster its generation is: f, or one that was sooner.
func Found(ctx context.Context, b *Bucket, f Founded) (*Founded, error) {
	f.Format = Format
	content, err := seal(f)
	if err != nil {
		return nil, err
	}
	key := generationKey(f.Name, f.Generation, "FOUNDED")
	err = put(ctx, b, key, content, true)
	if err == nil {
		return &f, nil
	}
	if gcerrors.Code(err) != gcerrors.FailedPrecondition {
		return nil, err
	}
	var there Founded
	return &there, document(ctx, b, key, &there)
}

// Seal ends the generation of a cluster's name that s names, and returns how it ended: so, or as somebody else was sooner to say.
func Seal(ctx context.Context, b *Bucket, name string, s Sealed) (*Sealed, error) {
	s.Format = Format
	content, err := seal(s)
	if err != nil {
		return nil, err
	}
	key := generationKey(name, s.Generation, "SEALED")
	err = put(ctx, b, key, content, true)
	if err == nil {
		return &s, nil
	}
	if gcerrors.Code(err) != gcerrors.FailedPrecondition {
		return nil, err
	}
	var there Sealed
	return &there, document(ctx, b, key, &there)
}
