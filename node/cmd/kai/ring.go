package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kai/node"
	"kai/node/console"
)

func (a app) ringCommand() *cobra.Command {
	var q ask
	var o output
	var watch, asJSON bool
	cmd := &cobra.Command{
		Use:   "ring",
		Short: "Show who holds how much, and how moves go",
		Long: `Show each node's part of the partitions, as one node knows it: how much it holds of
what it should hold by its weight, and how many replicas are to arrive and to leave.
Below it, how moves of partitions go. With --watch it does so every second until
Ctrl-C; if stdout is no terminal, in one line each.`,
		Example: `  kai ring
  kai ring --watch
  kai ring plan --with 3`,
		Args: cobra.NoArgs,
	}
	q.addTo(cmd, 5*time.Second)
	o.addTo(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "the same as -o json")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every second until Ctrl-C")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := a.client(q)
		if err != nil {
			return err
		}
		w := ringWatch{a: a, client: client, timeout: q.timeout, json: asJSON || o.format == formatJSON}
		if watch {
			return w.run(cmd.Context())
		}
		r, err := w.ask(cmd.Context())
		if err != nil {
			return unanswered(err)
		}
		if w.json {
			return printJSON(a.stdout, r)
		}
		a.printer().ring(r, time.Now())
		return nil
	}
	cmd.AddCommand(a.planCommand())
	return cmd
}

// ringWatch asks again and again.
type ringWatch struct {
	a       app
	client  console.Client
	timeout time.Duration
	json    bool
}

func (w ringWatch) ask(ctx context.Context) (console.Ring, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	return w.client.Ring(ctx)
}

// run shows the ring until ctx ends. A node that answered once may fail to for a while.
func (w ringWatch) run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for first := true; ; first = false {
		r, err := w.ask(ctx)
		if err != nil && (first || ctx.Err() != nil) {
			if ctx.Err() != nil {
				return nil
			}
			return unanswered(err)
		}
		w.show(r, err, first)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w ringWatch) show(r console.Ring, err error, first bool) {
	p, now := w.a.printer(), time.Now()
	switch {
	case w.json && err == nil:
		_ = json.NewEncoder(w.a.stdout).Encode(r) // a reader that went away is told by the next signal
	case w.json:
	case !w.a.terminal && err != nil:
		p.line(now.Format(time.TimeOnly) + "  " + err.Error())
	case !w.a.terminal:
		p.line(now.Format(time.TimeOnly) + "  moving: " + strings.Join(progress(r.Transfer), ", "))
	default:
		var b strings.Builder
		screen := printer{&b, p.colour}
		if err != nil {
			screen.line(screen.bad(err.Error()))
		} else {
			screen.ring(r, now)
			screen.line("")
			screen.line(now.Format(time.TimeOnly) + "  Ctrl-C ends this")
		}
		begin := "\x1b[H"
		if first {
			begin += "\x1b[2J"
		}
		_, _ = fmt.Fprint(p.w, begin+strings.ReplaceAll(b.String(), "\n", "\x1b[K\n")+"\x1b[J")
	}
}

// ring prints who holds how much, and how moves go.
func (p printer) ring(r console.Ring, now time.Time) {
	var ids []string
	for _, n := range r.Nodes {
		ids = append(ids, n.ID)
	}
	short := shorten(ids)
	rows := [][]string{{"NODE", "STATE", "ZONE", "SLOT", "WEIGHT", "PARTITIONS", "SHARE", "", "FAVOURED", "IN", "OUT", "PEER ADDRESS"}}
	held, replicas := 0, 0
	for _, n := range r.Nodes {
		share, drawn := "      –", ""
		if n.Share > 0 || n.State == console.NodeAlive && r.Mean > 0 {
			share, drawn = fmt.Sprintf("%5.1f %%", 100*n.Share), bar(n.Share)
		}
		name := short(n.ID)
		if n.ID == r.NodeID {
			name += "*"
		}
		slot := "–"
		if n.Slot >= 0 {
			slot = fmt.Sprint(n.Slot)
		}
		rows = append(rows, []string{name, p.state(n, now), orDash(n.Zone), fmt.Sprintf("%4s", slot), fmt.Sprintf("%6s", trim(n.Weight)),
			fmt.Sprintf("%10d", n.Partitions), drawn, share, fmt.Sprintf("%8d", n.Favoured), count(n.In), count(n.Out), orDash(n.PeerAddr)})
		held += n.Partitions
		replicas++
	}
	p.table(rows)
	p.line("")
	c := r.Cluster
	facts := [][2]string{{"partitions", fmt.Sprintf("%d, quorum %s, %d replicas at %d nodes", c.Partitions, c.Quorum, held, replicas)}}
	if r.Mean > 0 {
		facts[0][1] += fmt.Sprintf("; a node of weight 1 should hold %.1f", r.Mean)
	}
	facts = append(facts, [2]string{"under-replicated", p.underReplicated(r.UnderReplicated)})
	facts = append(facts, p.generations(r.Lost, r.Recoveries)...)
	for i, line := range progress(r.Transfer) {
		facts = append(facts, [2]string{[]string{"moving", "rate", "time left"}[i], line})
	}
	if c.ID == "" {
		facts = [][2]string{{"cluster", c.Founding}}
	}
	p.facts(facts)
}

// progress is what moves, at which rate, and for how long.
func progress(t console.Transfer) []string {
	if t.Moving+t.Planned == 0 {
		return []string{"no partition"}
	}
	lines := []string{fmt.Sprintf("%s, %d wait (%d at once); %s to go, about %s", number(t.Moving, "partition", "partitions"), t.Planned, t.AtOnce, number(t.LeftReplicas, "replica", "replicas"), node.Bytes(t.LeftBytes).Round())}
	rate := fmt.Sprintf("%s/s, %.1f replicas/s", node.Bytes(t.BytesPerSecond).Round(), t.ReplicasPerSecond)
	if t.Silent > 0 {
		rate += fmt.Sprintf(" (%s did not tell %s)", number(t.Silent, "node", "nodes"), word(t.Silent, "its own", "theirs"))
	}
	return append(lines, rate, timeLeft(t.SecondsLeft))
}

func timeLeft(seconds float64) string {
	if seconds < 0 {
		return "not known yet"
	}
	return "about " + (time.Duration(seconds+0.999) * time.Second).String()
}

// state says how a node is, and what will happen to a dead one.
func (p printer) state(n console.RingNode, now time.Time) string {
	switch n.State {
	case console.NodeAlive:
		return p.good(n.State)
	case console.NodeDead:
		text := "dead"
		if n.LastSeen != nil {
			text += " for " + now.Sub(*n.LastSeen).Round(time.Second).String()
			if n.ReplacedAt != nil && now.Before(*n.ReplacedAt) && n.Partitions > 0 {
				text += ", counts until " + n.ReplacedAt.Local().Format(time.TimeOnly)
			}
		}
		return p.bad(text)
	}
	return n.State
}

// barCells is how wide 100 % is in a bar; it ends at 125 %.
const barCells = 16

// bar draws a share: full blocks for what is held, shades up to 100 %.
func bar(share float64) string {
	eighths := int(min(share, 1.25)*barCells*8 + 0.5)
	b := strings.Repeat("█", eighths/8)
	cells := eighths / 8
	if eighths%8 > 0 {
		b += string([]rune(" ▏▎▍▌▋▊▉")[eighths%8])
		cells++
	}
	return b + strings.Repeat("░", max(0, barCells-cells)) + strings.Repeat(" ", barCells*5/4-max(cells, barCells))
}

// shorten returns a function that cuts ids to the shortest length, from 8 on, at which they differ.
func shorten(ids []string) func(string) string {
	for n := 8; ; n++ {
		seen := map[string]string{}
		clash := false
		cut := func(id string) string { return id[:min(n, len(id))] }
		for _, id := range ids {
			other, ok := seen[cut(id)]
			clash = clash || ok && other != id
			seen[cut(id)] = id
		}
		if !clash {
			return cut
		}
	}
}

// trim writes a number with as many digits as it has.
func trim(f float64) string {
	s := fmt.Sprintf("%.3f", f)
	s = strings.TrimRight(s, "0")
	if strings.HasSuffix(s, ".") {
		s += "0"
	}
	return s
}

// number is n of something.
func number(n int, one, many string) string { return fmt.Sprintf("%d %s", n, word(n, one, many)) }

func word(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// count is a number of replicas; nothing to see if it is 0.
func count(n int) string {
	if n == 0 {
		return "  –"
	}
	return fmt.Sprintf("%3d", n)
}
