package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kai/node"
	"kai/node/console"
)

// ask holds the flags of the commands that ask a node.
type ask struct {
	admin   string
	timeout time.Duration
}

func (q *ask) addTo(cmd *cobra.Command, timeout time.Duration) {
	cmd.Flags().StringVar(&q.admin, "admin", "", "host:port of the node's admin listener (default: KAI_ADMIN_LISTEN of this environment)")
	cmd.Flags().DurationVar(&q.timeout, "timeout", timeout, "longest time to wait for an answer")
}

// client asks the node of the environment, unless --admin names one.
func (a app) client(q ask) (console.Client, error) {
	if q.admin != "" {
		return console.Client{Addr: q.admin}, nil
	}
	c, err := node.Load(a.environ)
	if err != nil {
		return console.Client{}, failed{exitUsage, err}
	}
	return console.Client{Addr: c.AdminListen.Dial()}, nil
}

// unanswered gives an error of a client its exit code and, if there was no answer, what to do.
func unanswered(err error) error {
	if errors.Is(err, console.ErrUnreachable) {
		return failed{exitNotReady, fmt.Errorf("%w; is it running? KAI_ADMIN_LISTEN or --admin says where to ask", err)}
	}
	return failed{exitFailure, err}
}

func (a app) healthcheckCommand() *cobra.Command {
	var q ask
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the node whether it may take traffic",
		Long: `Ask the node's /readyz. Prints nothing when it is ready; otherwise says why and
exits with 3. Made for the HEALTHCHECK of a container, and for scripts that wait.`,
		Example: `  kai healthcheck && echo ready
  kai healthcheck --wait 1m
  kai healthcheck --admin 10.0.0.5:11214`,
		Args: cobra.NoArgs,
	}
	q.addTo(cmd, 2*time.Second)
	cmd.Flags().DurationVar(&wait, "wait", 0, "keep asking for this long until it is ready")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := a.client(q)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), wait)
		defer cancel()
		for {
			err := isReady(cmd.Context(), client, q.timeout)
			if err == nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	return cmd
}

// isReady asks once.
func isReady(ctx context.Context, client console.Client, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := client.Ready(ctx)
	if err != nil {
		return unanswered(err)
	}
	if !r.Ready {
		return failed{exitNotReady, fmt.Errorf("not ready: %s", strings.Join(r.Reasons, "; "))}
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return failed{exitFailure, err}
	}
	return nil
}
