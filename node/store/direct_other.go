//go:build !linux

package store

import (
	"errors"
	"os"
)

// direct is Linux's alone.
type direct struct{ off alwaysTrue }

type alwaysTrue struct{}

func (alwaysTrue) Load() bool { return true }

func (alwaysTrue) Store(bool) {}

func (*direct) open(string) *os.File { return nil }

func (*direct) write(*osFile, []byte, int64) error { return errors.ErrUnsupported }

func (*direct) probe(string) {}
