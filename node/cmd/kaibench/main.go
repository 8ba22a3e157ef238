// Command kaibench loads memcache servers over the text protocol and measures what they give.
//
//	kaibench run       one load against one system
//	kaibench compare   Kai beside Debian's memcached, in one interleaved run
//
// It shares its machine with the servers it measures, so it is built to be cheap: whatever the
// generator burns is missing on the other side. A request is copied together from parts made once,
// a reply is compared where it lies in the read buffer, and the clock is read once a system call.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the run failed, replies were wrong, or -check found a figure below its threshold
	exitUsage  = 2
)

const usage = `kaibench loads memcache servers over the text protocol.

  kaibench run -target 127.0.0.1:11211 -preload            closed loop, 32 connections, 90 % gets
  kaibench run -target a:11211,b:11211 -preload -depth 16  pipelined, connections spread over both
  kaibench run -target 127.0.0.1:11211 -rate 5000          open loop: latency from when a request was due
  kaibench compare -kai bin/kai                            Kai beside memcached, ratios per round
  kaibench compare -kai bin/kai -check                     the same; exit 1 below the thresholds
  kaibench compare -earlier old/kai -systems kai-3-interval,kai-3-interval-earlier -rounds 180 -anew 6 -stop=false -wake 4s -duration 200ms -warmup 50ms -shares 0
                                                           what a change is worth: many short rounds, processes started anew

"kaibench run -h" and "kaibench compare -h" list the flags.
Exit codes: 0 done, 1 failed (or below a threshold with -check), 2 wrong usage.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// command runs one subcommand and returns the exit code. Results go to out, progress and errors to
// note. It has stopped whatever it started when it returns, also when ctx ended.
func command(ctx context.Context, args []string, out, note io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(note, usage)
		return exitUsage
	}
	var err error
	switch args[0] {
	case "run":
		err = runCommand(ctx, args[1:], out, note)
	case "compare":
		err = compareCommand(ctx, args[1:], out, note)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(out, usage)
	default:
		fmt.Fprintf(note, "kaibench: no subcommand %q\n\n%s", args[0], usage)
		return exitUsage
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, new(usageError)):
		fmt.Fprintln(note, "kaibench:", err)
		return exitUsage
	}
	fmt.Fprintln(note, "kaibench:", err)
	return exitFailed
}

// usageError is a fault in the flags.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// parse parses flags; note gets the help text.
func parse(fs *flag.FlagSet, args []string, note io.Writer) error {
	fs.SetOutput(note)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{err}
	}
	if fs.NArg() > 0 {
		return usagef("unexpected argument %q", fs.Arg(0))
	}
	return nil
}
