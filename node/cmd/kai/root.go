package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"kai/node"
	"kai/telemetry"
)

// Exit codes; the help of the root command and the README list them.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2
	exitNotReady = 3
)

const rootHelp = `Kai is a distributed, persistent key-value store that speaks the memcache protocol.

Without a subcommand, kai runs a node. A node takes all its settings from the
environment (KAI_LISTEN, KAI_QUORUM, …); "kai config" lists them with what they
mean and where each value comes from.

Exit codes:
  0    done
  1    failure; the last line on stderr says which
  2    wrong usage or configuration; nothing was started
  3    the node does not answer, or is not ready
  130  stopped at once by a second SIGINT (143: SIGTERM)`

const rootExamples = `  # one node on this machine, data in ./data
  kai

  # the same, on other ports and with another data directory
  KAI_LISTEN=127.0.0.1:21211 KAI_DATA_DIR=/var/lib/kai kai node

  # how is the node on this machine?
  kai status

  # store and fetch with any memcache client
  printf 'set greeting 0 0 5\r\nhello\r\nget greeting\r\nquit\r\n' | nc 127.0.0.1 11211`

// failed is an error of a command that had started, with its exit code.
type failed struct {
	code int
	err  error
}

func (f failed) Error() string { return f.err.Error() }
func (f failed) Unwrap() error { return f.err }

// main runs the command and returns its exit code. All errors are printed here and nowhere else.
func (a app) main(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintf(a.stderr, "kai: %v\n", err)
	var f failed
	if errors.As(err, &f) {
		return f.code
	}
	_, _ = fmt.Fprintln(a.stderr, "Run kai --help for usage.")
	return exitUsage // the command line itself: cobra never started a command
}

func (a app) root() *cobra.Command {
	nodeCmd := a.nodeCommand()
	root := &cobra.Command{
		Use: "kai", Short: "Run a Kai node, or ask one how it is", Long: rootHelp, Example: rootExamples,
		Version: a.version, SilenceUsage: true, SilenceErrors: true, RunE: nodeCmd.RunE,
	}
	root.Flags().AddFlagSet(nodeCmd.Flags())
	root.SetVersionTemplate(a.versionLine() + "\n")
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.AddCommand(nodeCmd, a.statusCommand(), a.ringCommand(), a.drainCommand(), a.recoverCommand(), a.traceCommand(), a.configCommand(), a.healthcheckCommand(), a.backupCommand(), a.versionCommand())
	return root
}

// getenv is a variable of the environment.
func (a app) getenv(name string) string { return a.environ[name] }

// config loads the configuration of the environment, with the address to advertise. The error has
// every fault of Kai's variables and of OpenTelemetry's.
func (a app) config() (node.Config, error) {
	c, err := node.Load(a.environ)
	all := &node.ConfigError{}
	if err != nil && !errors.As(err, &all) {
		return c, failed{exitUsage, err}
	}
	for _, f := range telemetry.Check(a.getenv) {
		all.Faults = append(all.Faults, node.Fault(f))
	}
	if len(all.Faults) > 0 {
		return c, failed{exitUsage, all}
	}
	interfaces, err := a.interfaces()
	if err != nil {
		return c, failed{exitFailure, err}
	}
	if c, err = c.ResolveAdvertise(interfaces); err != nil {
		return c, failed{exitUsage, fmt.Errorf("configuration: %w", err)}
	}
	return c, nil
}

// output is the -o flag.
type output struct{ format string }

const (
	formatTable = "table"
	formatJSON  = "json"
)

func (o *output) String() string { return o.format }
func (o *output) Type() string   { return "format" }
func (o *output) Set(s string) error {
	if s != formatTable && s != formatJSON {
		return errors.New("must be table or json")
	}
	o.format = s
	return nil
}

// addTo makes -o a flag of cmd.
func (o *output) addTo(cmd *cobra.Command) {
	o.format = formatTable
	cmd.Flags().VarP(o, "output", "o", "table or json")
	// The error says that the flag is unknown, and it was made one line above.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{formatTable, formatJSON}, cobra.ShellCompDirectiveNoFileComp))
}
