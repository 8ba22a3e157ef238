package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kai/node"
	"kai/node/console"
)

func (a app) statusCommand() *cobra.Command {
	var q ask
	var o output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the cluster as a node sees it",
		Long: `Show the cluster as one node sees it: nodes, zones, partitions, under-replication,
versions, and that node's store and links. Asks the node's admin listener. Exits
with 0 when the node answers, ready or not; "kai healthcheck" tells those apart.`,
		Example: `  kai status
  kai status --admin 10.0.0.5:11214
  kai status -o json | jq '.nodes[] | select(.alive | not) | .id'`,
		Args: cobra.NoArgs,
	}
	q.addTo(cmd, 5*time.Second)
	o.addTo(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := a.client(q)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), q.timeout)
		defer cancel()
		status, err := client.Status(ctx)
		if err != nil {
			return unanswered(err)
		}
		if o.format == formatJSON {
			return printJSON(a.stdout, status)
		}
		a.printStatus(status, time.Now())
		return nil
	}
	return cmd
}

func (a app) printStatus(s console.Status, now time.Time) {
	p := a.printer()
	c := s.Cluster
	readiness := p.good("ready")
	if !s.Ready {
		readiness = p.bad("not ready: " + strings.Join(s.Reasons, "; "))
	}
	facts := [][2]string{
		{"node", fmt.Sprintf("%s, %s, version %s, up %s", s.NodeID, readiness, s.Version, now.Sub(s.Started).Round(time.Second))},
		{"cluster", fmt.Sprintf("%s, %s, id %s", c.Name, c.Founding, orDash(c.ID))},
		{"quorum", fmt.Sprintf("%s (N:R:W), %d partitions, %d vnodes a node", c.Quorum, c.Partitions, c.VNodes)},
		{"under-replicated", p.underReplicated(s.UnderReplicated)},
	}
	facts = append(facts, p.generations(s.Lost, s.Recoveries)...)
	facts = append(facts, [2]string{"moving", moving(s)}, [2]string{"store", storeLine(s.Store, p)})
	if s.Backup != nil {
		facts = append(facts, [2]string{"backup", p.backup(*s.Backup, now)})
	}
	p.facts(facts)
	rows := [][]string{{"NODE", "STATE", "ZONE", "SLOT", "PARTITIONS", "FAVOURED", "PEER ADDRESS", "LINK", "VERSION", "BOOT"}}
	for _, n := range s.Nodes {
		state := p.bad("dead")
		if n.Alive {
			state = p.good("alive")
		}
		if n.Draining {
			state = "draining"
		}
		rows = append(rows, []string{n.ID, state, orDash(n.Zone), fmt.Sprint(n.Slot), fmt.Sprint(n.Partitions), fmt.Sprint(n.Favoured),
			n.PeerAddr, p.link(s, n.ID), n.Version, fmt.Sprint(n.Boot)})
	}
	p.line("")
	p.table(rows)
}

func (p printer) underReplicated(u console.UnderReplicated) string {
	if u.Partitions == 0 {
		return p.good("no partition")
	}
	return p.bad(fmt.Sprintf("%d partitions: %s", u.Partitions, u.Reason))
}

// generations tells of partitions without a quorum for good, and of those that were; nothing if there are none.
func (p printer) generations(lost int, r console.Recoveries) (facts [][2]string) {
	if lost > 0 {
		facts = append(facts, [2]string{"lost", p.bad(number(lost, "partition has", "partitions have") + " no quorum for good: kai recover")})
	}
	if r.Partitions > 0 {
		facts = append(facts, [2]string{"generation", fmt.Sprintf("%d; %s recovered without all of their nodes", r.Generation, number(r.Partitions, "partition was", "partitions were"))})
	}
	return facts
}

// moving says in a line what moves, at which rate, and for how long.
func moving(s console.Status) string {
	if s.Moving > 0 && s.Transfer.Moving+s.Transfer.Planned == 0 { // a node of an earlier build
		return fmt.Sprintf("%d partitions", s.Moving)
	}
	return strings.Join(progress(s.Transfer), "; ")
}

// link says how the answering node is linked to another.
func (p printer) link(s console.Status, id string) string {
	if id == s.NodeID {
		return "this"
	}
	for _, l := range s.Links {
		if l.Node == id {
			if l.Up {
				return p.good("up")
			}
			return p.bad("down")
		}
	}
	return orDash("")
}

// backup says how old the newest snapshot is, and what fails.
func (p printer) backup(b console.Backup, now time.Time) string {
	line := p.bad("no complete snapshot") + " in " + b.URL
	if b.Newest != nil {
		line = fmt.Sprintf("newest snapshot %s old, in %s", now.Sub(*b.Newest).Round(time.Second), b.URL)
	}
	if b.LastError != "" {
		line += ", " + p.bad(b.LastError)
	}
	return line
}

func storeLine(s console.Store, p printer) string {
	line := fmt.Sprintf("durability %s, %s on disk, cache %s", s.Durability, node.Bytes(s.DiskBytes).Round(), node.Bytes(s.CacheBytes).Round())
	if asked := s.CacheHits + s.CacheMisses; asked > 0 {
		line += fmt.Sprintf(" with %.1f %% hits", 100*float64(s.CacheHits)/float64(asked))
	}
	if s.Fault != "" {
		line += ", " + p.bad(s.Fault)
	}
	return line
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
