package main

import (
	"context"
	"errors"

	"kai/node"
)

// run keeps the command building until the assembly of the node is here.
func run(context.Context, node.Config, node.Options) error {
	return errors.New("this build has no node in it yet")
}
