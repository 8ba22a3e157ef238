package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kai/node/console"
)

func (a app) recoverCommand() *cobra.Command {
	var q ask
	var o output
	var confirm string
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on without nodes that are gone for good",
		Long: `Go on with partitions that can make no quorum any more, because too many of their
nodes have been dead for longer than KAI_REPLACE_AFTER. Without --confirm it lists
them, with what may be lost, and changes nothing.

With --confirm and the name of the cluster each of them begins a new generation with
the nodes that survive, or with an empty one where none does; then they grow to N
replicas again. Writes that only the nodes that are gone had are lost, and deletions
that only they knew of are undone. You answer for it that those nodes never come
back: should they, what they acknowledged meanwhile is lost, too. Start them instead
if their disks can still be read.`,
		Example: `  kai recover
  kai recover --confirm kai`,
		Args: cobra.NoArgs,
	}
	q.addTo(cmd, 30*time.Second)
	o.addTo(cmd)
	cmd.Flags().StringVar(&confirm, "confirm", "", "name of the cluster (KAI_CLUSTER): recover, and lose what is lost")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := a.client(q)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), q.timeout)
		defer cancel()
		ask := client.Lost
		if confirm != "" {
			ask = func(ctx context.Context) (console.Recovery, error) { return client.Recover(ctx, confirm) }
		}
		r, err := ask(ctx)
		if err != nil {
			return unanswered(err)
		}
		if o.format == formatJSON {
			if err := printJSON(a.stdout, r); err != nil {
				return err
			}
		} else {
			a.printer().recovery(r, confirm != "")
		}
		return recovered(r, confirm != "")
	}
	return cmd
}

// recovered is nil if no lost partition is left.
func recovered(r console.Recovery, confirmed bool) error {
	left := 0
	for _, p := range r.Partitions {
		if !p.Recovered {
			left++
		}
	}
	switch {
	case left == 0:
		return nil
	case !confirmed:
		return failed{exitFailure, errors.New("nothing was recovered: that wants --confirm " + r.Cluster)}
	}
	return failed{exitFailure, fmt.Errorf("%s not recovered", number(left, "partition was", "partitions were"))}
}

func (p printer) recovery(r console.Recovery, confirmed bool) {
	if len(r.Partitions) == 0 {
		p.line(p.good("every partition has its quorum, or gets it back when nodes do that are only away"))
		if r.Refused != "" {
			p.line("node " + r.NodeID + " may know too little: " + r.Refused)
		}
		return
	}
	groups := groupLost(r.Partitions)
	var ids []string
	for _, g := range groups {
		ids = append(ids, slices.Concat(g.Members, g.Next, g.New)...)
	}
	short := shorten(ids)
	gone := map[string]bool{}
	for i, g := range groups {
		if i > 0 {
			p.line("")
		}
		facts := [][2]string{{"partitions", fmt.Sprintf("%d: %s", len(g.numbers), ranges(g.numbers))}, {"members", p.holders(g.Members, g.LostPartition, short)}}
		if len(g.Next) > 0 {
			facts = append(facts, [2]string{"moving to", p.holders(g.Next, g.LostPartition, short)})
		}
		verdict := [2]string{"may be lost", p.bad(g.Loss)}
		facts = append(facts, verdict)
		switch {
		case g.Recovered:
			facts = append(facts, [2]string{"recovered", p.good(fmt.Sprintf("generation %d at %s", g.Generation, join(g.New, short)))})
		case g.Refused != "":
			facts = append(facts, [2]string{"not now", p.bad(g.Refused)})
		default:
			facts = append(facts, [2]string{"would go on", fmt.Sprintf("in generation %d at %s", g.Generation+1, join(g.New, short))})
		}
		p.facts(facts)
		for _, id := range g.Gone {
			gone[id] = true
		}
	}
	if confirmed {
		return
	}
	p.line("")
	if r.Refused != "" {
		p.line(p.bad("not now: " + r.Refused))
		return
	}
	var names []string
	for id := range gone {
		names = append(names, id)
	}
	slices.Sort(names)
	p.line("Start these nodes again if their disks can still be read; nothing is lost then: " + join(names, short))
	p.line("If they never come back:  kai recover --confirm " + r.Cluster)
}

// holders lists nodes and how each is.
func (p printer) holders(ids []string, l console.LostPartition, short func(string) string) string {
	var all []string
	for _, id := range ids {
		text := short(id)
		switch {
		case slices.Contains(l.Survivors, id):
			text += " " + p.good("alive")
		case slices.Contains(l.Gone, id):
			text += " " + p.bad("gone")
		default:
			text += " away"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func join(ids []string, short func(string) string) string {
	var all []string
	for _, id := range ids {
		all = append(all, short(id))
	}
	return strings.Join(all, ", ")
}

// lostGroup is partitions of which the same is to be said.
type lostGroup struct {
	console.LostPartition
	numbers []int
}

func groupLost(all []console.LostPartition) []*lostGroup {
	var groups []*lostGroup
	at := map[string]*lostGroup{}
	for _, l := range all {
		sorted := func(ids []string) []string { return slices.Sorted(slices.Values(ids)) }
		key := fmt.Sprint(sorted(l.Members), sorted(l.Next), sorted(l.New), sorted(l.Gone), sorted(l.Survivors), l.Loss, l.Refused, l.Recovered, l.Generation)
		if at[key] == nil {
			at[key] = &lostGroup{LostPartition: l}
			groups = append(groups, at[key])
		}
		at[key].numbers = append(at[key].numbers, l.Partition)
	}
	return groups
}

// shownRanges is how many ranges of numbers are written out.
const shownRanges = 12

// ranges writes ascending numbers as 1–4, 7, 9–12.
func ranges(numbers []int) string {
	var all []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if len(all) == shownRanges {
			all = append(all, fmt.Sprintf("… (%d more; -o json lists all)", len(numbers)-i))
			break
		}
		text := strconv.Itoa(numbers[i])
		if j > i {
			text += "–" + strconv.Itoa(numbers[j])
		}
		all = append(all, text)
		i = j + 1
	}
	return strings.Join(all, ", ")
}
