package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// runCommand is "kaibench run".
func runCommand(ctx context.Context, args []string, out, note io.Writer) error {
	load, format := defaultLoad(), "table"
	fs := flag.NewFlagSet("kaibench run", flag.ContinueOnError)
	targets := fs.String("target", "127.0.0.1:11211", "servers, host:port[,host:port…]; connections are dealt out in turn")
	loadFlags(fs, &load)
	fs.IntVar(&load.Depth, "depth", load.Depth, "closed loop: requests sent at once on a connection before their replies are awaited")
	fs.Float64Var(&load.Rate, "rate", 0, "open loop: requests per second in all, due whether or not replies come; 0 means closed loop")
	fs.BoolVar(&load.Preload, "preload", false, "store every key first; from then on a get that misses is an error")
	fs.StringVar(&format, "o", format, "table or json")
	if err := parse(fs, args, note); err != nil {
		return err
	}
	load.Targets = strings.Split(*targets, ",")
	if err := load.check(); err != nil {
		return err
	}
	if format != "table" && format != "json" {
		return usagef("-o %q: table or json", format)
	}
	res, err := load.Run(ctx)
	if err != nil {
		return err
	}
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(res); err != nil {
			return err
		}
	} else {
		res.table(out)
	}
	return res.fault()
}

// loadFlags registers the flags that run and compare share.
func loadFlags(fs *flag.FlagSet, l *Load) {
	fs.IntVar(&l.Conns, "conns", l.Conns, "connections")
	fs.IntVar(&l.Gets, "gets", l.Gets, "per cent of requests that are gets; the others are sets")
	fs.IntVar(&l.ValueBytes, "value", l.ValueBytes, "bytes of a value")
	fs.IntVar(&l.Keys, "keys", l.Keys, "number of keys, all equally likely")
	fs.DurationVar(&l.Duration, "duration", l.Duration, "measured time")
	fs.DurationVar(&l.Warmup, "warmup", l.Warmup, "time under load before measuring")
	fs.Uint64Var(&l.Seed, "seed", l.Seed, "the same seed sends the same requests at the same due times")
}

// Load is one load: against whom, how much, of what.
type Load struct {
	Targets    []string      `json:"targets"`
	Conns      int           `json:"conns"`
	Depth      int           `json:"depth"`
	Gets       int           `json:"gets_percent"`
	ValueBytes int           `json:"value_bytes"`
	Keys       int           `json:"keys"`
	Duration   time.Duration `json:"duration_ns"`
	Warmup     time.Duration `json:"warmup_ns"`
	// Rate is requests per second in all; 0 means closed loop.
	Rate float64 `json:"rate,omitempty"`
	// Preload stores every key before the run.
	Preload bool `json:"preload"`
	// MustHit makes a miss an error: the keys were stored before.
	MustHit bool   `json:"must_hit"`
	Seed    uint64 `json:"seed"`
}

func defaultLoad() Load {
	return Load{
		Conns: 32, Depth: 1, Gets: 90, ValueBytes: 100, Keys: 100_000,
		Duration: 10 * time.Second, Warmup: 500 * time.Millisecond, Seed: 1,
	}
}

func (l *Load) check() error {
	switch {
	case len(l.Targets) == 0 || l.Targets[0] == "":
		return usagef("-target is empty")
	case l.Conns < 1 || l.Conns > 50_000:
		return usagef("-conns %d: 1 to 50000", l.Conns)
	case l.Depth < 1 || l.Depth > 1024:
		return usagef("-depth %d: 1 to 1024", l.Depth)
	case l.Gets < 0 || l.Gets > 100:
		return usagef("-gets %d: 0 to 100 per cent", l.Gets)
	case l.ValueBytes < 0 || l.ValueBytes > 64<<20:
		return usagef("-value %d: 0 to 64 MiB", l.ValueBytes)
	case l.Keys < 1 || l.Keys > maxKeys:
		return usagef("-keys %d: 1 to %d", l.Keys, maxKeys)
	case l.Duration <= 0 || l.Warmup < 0:
		return usagef("-duration %v, -warmup %v: must be positive", l.Duration, l.Warmup)
	case l.Rate < 0:
		return usagef("-rate %v: must not be negative", l.Rate)
	}
	return nil
}

// Run loads the targets and returns what was measured. It blocks for Warmup + Duration, before that
// as long as connecting and preloading take, and after it at most grace. It fails when a target
// cannot be reached at first, when preloading fails, and when ctx ends; errors on the way are
// counted in the Result.
func (l Load) Run(ctx context.Context) (Result, error) {
	l.MustHit = l.MustHit || l.Preload
	clients, err := l.dial(ctx)
	if err != nil {
		return Result{}, err
	}
	closeAll := func() {
		for _, c := range clients {
			c.close()
		}
	}
	defer closeAll()
	defer context.AfterFunc(ctx, closeAll)()
	if l.Preload {
		if err := l.preload(ctx, clients); err != nil {
			return Result{}, fmt.Errorf("preload: %w", err)
		}
	}
	cpu := ownCPU()
	w := newWindow(l.Warmup, l.Duration)
	if l.Rate > 0 {
		l.open(clients, w)
	} else {
		l.closed(clients, w)
	}
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	return merge(l, clients, ownCPU()-cpu), nil
}
