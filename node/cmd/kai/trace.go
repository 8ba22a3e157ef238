package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kai/node/console"
)

func (a app) traceCommand() *cobra.Command {
	var q ask
	var o output
	var limit int
	cmd := &cobra.Command{
		Use:   "trace slow|failed|diverged|hinted|sampled",
		Short: "Show what became of single requests: which replica said what, and when",
		Long: `Show the newest requests that a node has kept, each with a line for every message to a
replica: when it was sent and answered, what the answer was, and what of that time the
replica spent itself, in its queue and in its store. Commands that a client sends at once are
answered together: one whose replicas have all answered waited for the others.

  slow      took KAI_TRACE_SLOW or longer
  failed    unavailable, of unknown outcome, or corrupt
  diverged  a get found that its replicas differ; stale marks those that were behind
  hinted    written while a replica was known not to take it; that one is told later
  sampled   chosen by chance: KAI_TRACE_RATIO of all

A node keeps those of its own clients, and what it ran for other nodes (forwarded): those have one
trace on both. The newest 256 of each are kept, at most 100 a second. Keys are not shown.`,
		Example: `  kai trace slow
  kai trace failed -n 3 --admin 10.0.0.5:11214
  kai trace diverged -o json`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{"slow", "failed", "diverged", "hinted", "sampled"},
	}
	q.addTo(cmd, 5*time.Second)
	o.addTo(cmd)
	cmd.Flags().IntVarP(&limit, "number", "n", 5, "how many at most")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := a.client(q)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), q.timeout)
		defer cancel()
		all, err := client.Requests(ctx, args[0], limit)
		if err != nil {
			return unanswered(err)
		}
		if o.format == formatJSON {
			return printJSON(a.stdout, all)
		}
		p := a.printer()
		if len(all) == 0 {
			p.line("none since the node was started")
		}
		for i, r := range all {
			if i > 0 {
				p.line("")
			}
			p.request(r)
		}
		return nil
	}
	return cmd
}

// traceColumns is how many columns a request's time has.
const traceColumns = 40

// request prints one request as a waterfall.
func (p printer) request(r console.Request) {
	what := p.bad(strings.Join(r.Classes, ", "))
	by := ""
	if r.Batch > 1 {
		by = fmt.Sprintf(" with %d others", r.Batch-1)
	}
	if r.Forwarded {
		by = ", for another node"
	}
	p.line(fmt.Sprintf("%s  %s: %s after %s%s  (%s)", r.Began.Local().Format("15:04:05.000"), r.Command, r.Outcome, took(r.Took), by, what))
	if r.Detail != "" {
		p.line("  " + r.Detail)
	}
	p.line(fmt.Sprintf("  trace %s, partition %d, key #%s", r.TraceID, r.Partition, r.KeyHash))
	rows := [][]string{{"  MESSAGE", "NODE", "ADDRESS", "0" + strings.Repeat(" ", traceColumns-1-len(took(r.Took))) + took(r.Took), "ANSWER", "QUEUE", "STORE"}}
	for _, s := range r.Steps {
		message := s.Message
		if s.Digest {
			message += " (ballot)"
		}
		said, queue, store := p.bad("none yet"), "", ""
		if s.Answered != nil {
			said, queue, store = s.Status, took(s.Queue), took(s.Store)
			if s.Status != "ok" {
				said = p.bad(said)
			}
			if s.Stale {
				said = p.bad(s.Status + ", stale")
			}
		}
		rows = append(rows, []string{"  " + message, s.Node, s.Addr, span(s, r.Took), said, queue, store})
	}
	p.table(rows)
}

// span draws when a message was under way.
func span(s console.RequestStep, whole float64) string {
	at := func(t float64) int { return max(0, min(traceColumns-1, int(t/max(whole, 1e-9)*traceColumns))) }
	from, to, mark := at(s.Sent), traceColumns-1, "·"
	if s.Answered != nil {
		to, mark = max(from, at(*s.Answered)), "█"
	}
	return strings.Repeat(" ", from) + strings.Repeat(mark, to-from+1) + strings.Repeat(" ", traceColumns-1-to)
}

// took is a time of a request, short.
func took(seconds float64) string {
	d := time.Duration(seconds * 1e9)
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}
