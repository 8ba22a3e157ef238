package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"kai/node"
	"kai/node/console"
)

func (a app) planCommand() *cobra.Command {
	var q ask
	var o output
	var asJSON bool
	var query console.PlanQuery
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what would move before it does",
		Long: `Show what would move: now (what is planned), if nodes were taken out (--without), or
if there were more of them (--with). The node that is asked makes the plan, by the code
that plans in earnest; nothing moves.`,
		Example: `  kai ring plan
  kai ring plan --without 3fa2
  kai ring plan --without 10.0.0.5:11212 --with 2 --zone eu-1a --zone eu-1b`,
		Args: cobra.NoArgs,
	}
	q.addTo(cmd, 10*time.Second)
	o.addTo(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "the same as -o json")
	cmd.Flags().StringArrayVar(&query.Without, "without", nil, "a node to take out: the beginning of its id, or an address; may be repeated")
	cmd.Flags().IntVar(&query.With, "with", 0, "how many nodes to add")
	cmd.Flags().StringArrayVar(&query.Zones, "zone", nil, "zone of the nodes added, in turn if repeated (default: where the fewest nodes are)")
	cmd.Flags().Float64Var(&query.Weight, "weight", 0, "weight of the nodes added (default 1)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if query.With < 0 || query.With > console.MaxWith {
			return failed{exitUsage, fmt.Errorf("--with must be from 0 to %d", console.MaxWith)}
		}
		if query.With == 0 && (len(query.Zones) > 0 || query.Weight != 0) {
			return failed{exitUsage, errors.New("--zone and --weight are those of the nodes that --with adds")}
		}
		client, err := a.client(q)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), q.timeout)
		defer cancel()
		plan, err := client.Plan(ctx, query)
		if err != nil {
			return unanswered(err)
		}
		if asJSON || o.format == formatJSON {
			return printJSON(a.stdout, plan)
		}
		a.printer().plan(plan)
		return nil
	}
	return cmd
}

func (p printer) plan(plan console.Plan) {
	var ids []string
	most := 1
	for _, n := range plan.Nodes {
		if n.Fate != console.PlanComes {
			ids = append(ids, n.ID)
		}
		most = max(most, n.Before, n.After)
	}
	short := shorten(ids)
	rows := [][]string{{"NODE", "", "ZONE", "WEIGHT", "BEFORE", "AFTER", "", "IN", "OUT", "FAVOURED", "PEER ADDRESS"}}
	for _, n := range plan.Nodes {
		name, fate := short(n.ID), n.Fate
		switch fate {
		case console.PlanComes:
			name, fate = n.ID, p.good(fate)
		case console.PlanLeaves:
			fate = p.bad(fate)
		case console.PlanStays:
			fate = ""
		}
		rows = append(rows, []string{name, fate, orDash(n.Zone), fmt.Sprintf("%6s", trim(n.Weight)), fmt.Sprintf("%6d", n.Before), fmt.Sprintf("%5d", n.After),
			bar(float64(n.After) / float64(most)), count(n.In), count(n.Out), fmt.Sprintf("%d → %d", n.FavouredBefore, n.FavouredAfter), orDash(n.Addr)})
	}
	p.table(rows)
	p.line("")
	switch {
	case plan.Impossible != "":
		p.line(p.bad("nothing would move: " + plan.Impossible))
	case plan.Partitions == 0:
		p.line("nothing would move")
	default:
		line := fmt.Sprintf("%s would move, at most %d at once: %s to transfer, about %s", number(plan.Partitions, "partition", "partitions"), plan.AtOnce, number(plan.Replicas, "replica", "replicas"), node.Bytes(plan.Bytes).Round())
		if plan.Seconds > 0 {
			line += "; at the rate of now " + timeLeft(plan.Seconds)
		}
		p.line(line)
	}
}
