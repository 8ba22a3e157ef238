// Command kai runs a Kai node, and asks nodes how they are. Run kai --help.
package main

import (
	"context"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"kai/node"
)

// version of the build; the Makefile and the Dockerfile set it.
var version = "dev"

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go stopOnSignal(signals, time.Now, cancel, os.Exit)
	a := app{
		stdout: os.Stdout, stderr: os.Stderr, environ: environ(os.Environ()), version: version,
		terminal: isTerminal(os.Stdout), run: node.Run, interfaces: node.InterfaceAddrs,
	}
	os.Exit(a.main(ctx, os.Args[1:]))
}

// app is the command with everything it touches, so that tests can hold it.
type app struct {
	stdout, stderr io.Writer
	environ        map[string]string
	version        string
	terminal       bool // stdout is one
	run            func(context.Context, node.Config, node.Options) error
	interfaces     func() ([]netip.Addr, error)
}

// echo is how soon after the first a signal counts as the same one: a supervisor that signals the
// process group and its parent, which passes it on (timeout make run), sends two at once.
const echo = 500 * time.Millisecond

// stopOnSignal cancels at the first signal and ends the process at the second, with the code a shell
// gives for a process ended by that signal. It returns after exit, or when signals is closed.
func stopOnSignal(signals <-chan os.Signal, now func() time.Time, cancel func(), exit func(int)) {
	<-signals
	cancel()
	first := now()
	for s := range signals {
		if now().Sub(first) < echo {
			continue
		}
		code := exitFailure
		if number, ok := s.(syscall.Signal); ok {
			code = 128 + int(number)
		}
		exit(code)
		return
	}
}

func environ(list []string) map[string]string {
	m := make(map[string]string, len(list))
	for _, one := range list {
		if name, value, ok := strings.Cut(one, "="); ok {
			m[name] = value
		}
	}
	return m
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
