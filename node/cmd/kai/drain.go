package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kai/node/console"
)

func (a app) drainCommand() *cobra.Command {
	var q ask
	var name string
	var undo, detach bool
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Have a node hand over all it holds, and run on",
		Long: `Have a node hand over all partitions it holds to the other nodes, and wait until it
holds none. It goes on serving clients, as a coordinator. Stopped then, it stops at
once. Ctrl-C ends the wait, not the drain; --undo has the node take partitions again.
A restart does, too: a drain is not remembered.

The node is the one that answers at --admin, or the one of the cluster that --node
names, if its admin listener can be reached from here.`,
		Example: `  kai drain
  kai drain --node 3fa2
  kai drain --admin 10.0.0.5:11214 --undo`,
		Args: cobra.NoArgs,
	}
	q.addTo(cmd, 5*time.Second)
	cmd.Flags().StringVar(&name, "node", "", "the node: the beginning of its id, or its peer or admin address (default: the one that answers)")
	cmd.Flags().BoolVar(&undo, "undo", false, "have the node take partitions again")
	cmd.Flags().BoolVar(&detach, "no-wait", false, "ask for the drain and do not wait for it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := a.client(q)
		if err != nil {
			return err
		}
		d := draining{a: a, client: client, timeout: q.timeout}
		if err := d.ask(cmd.Context(), name, !undo); err != nil {
			return err
		}
		if undo || detach {
			return nil
		}
		return d.wait(cmd.Context())
	}
	return cmd
}

// draining is a drain as the command sees it.
type draining struct {
	a       app
	client  console.Client
	timeout time.Duration
	id      string
}

// ask finds the node, and asks it for a drain, or to take partitions again.
func (d *draining) ask(ctx context.Context, name string, on bool) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if name != "" {
		status, err := d.client.Status(ctx)
		if err != nil {
			return unanswered(err)
		}
		n, err := findNode(status.Nodes, name)
		if err != nil {
			return failed{exitFailure, err}
		}
		d.id = n.ID
		if n.ID != status.NodeID {
			d.client.Addr = n.AdminAddr
		}
	}
	got, err := d.client.SetDrain(ctx, d.id, on)
	if err != nil {
		return unanswered(err)
	}
	d.id = got.NodeID
	if on {
		d.a.printer().line(fmt.Sprintf("node %s hands over %s", d.id, number(got.Partitions, "partition", "partitions")))
	} else {
		d.a.printer().line(fmt.Sprintf("node %s takes partitions again; it holds %d", d.id, got.Partitions))
	}
	return nil
}

// wait shows how far the node is until it holds nothing. That nobody can take what is left may pass: others may
// come.
func (d *draining) wait(ctx context.Context) error {
	p := d.a.printer()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, d.timeout)
		got, err := d.client.Drain(asking)
		ring := console.Ring{}
		if err == nil && got.Partitions > 0 {
			ring, err = d.client.Ring(asking)
		}
		cancel()
		switch {
		case ctx.Err() != nil:
			d.show(fmt.Sprintf("the drain of node %s goes on; \"kai drain --undo\" takes it back", d.id), true)
			return nil
		case err != nil:
			d.show("", true)
			return unanswered(err)
		case got.NodeID != d.id:
			return failed{exitFailure, fmt.Errorf("another node, %s, answers now", got.NodeID)}
		case !got.Asked:
			d.show("", true)
			return failed{exitFailure, fmt.Errorf("node %s takes partitions again: somebody took the drain back, or it was restarted", d.id)}
		case got.Partitions == 0:
			d.show("", true)
			p.line(p.good(fmt.Sprintf("node %s holds nothing, and may be stopped", d.id)))
			return nil
		}
		line := number(got.Partitions, "partition", "partitions") + " left"
		if got.Reason != "" {
			line += "; nobody can take them: " + got.Reason
		} else if more := progress(ring.Transfer); len(more) == 3 {
			line += fmt.Sprintf(", %s, %s", more[1], more[2])
		}
		d.show(line, false)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// show replaces the line on a terminal, and prints another one elsewhere.
func (d *draining) show(line string, last bool) {
	switch {
	case d.a.terminal && last && line == "":
		_, _ = fmt.Fprint(d.a.stdout, "\r\x1b[K")
	case d.a.terminal && !last:
		_, _ = fmt.Fprint(d.a.stdout, "\r"+line+"\x1b[K")
	case d.a.terminal:
		_, _ = fmt.Fprint(d.a.stdout, "\r\x1b[K"+line+"\n")
	case line != "":
		_, _ = fmt.Fprintln(d.a.stdout, line)
	}
}

// findNode finds the node that is named by the beginning of its id or by an address.
func findNode(nodes []console.Node, name string) (console.Node, error) {
	var found []console.Node
	for _, n := range nodes {
		if strings.HasPrefix(n.ID, name) || name == n.PeerAddr || name == n.AdminAddr {
			found = append(found, n)
		}
	}
	if len(found) != 1 {
		return console.Node{}, fmt.Errorf("%d nodes are called %q: write the beginning of an id, or an address; kai ring lists them", len(found), name)
	}
	return found[0], nil
}
