package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// plan is what compare was asked to do.
type plan struct {
	load    Load // of every cell, but for targets, depth and rate
	kai     string
	earlier string // another build
	dir     string
	systems []string
	depths  []int
	rates   []float64 // absolute, requests per second
	shares  []float64 // of what the slowest system sustains, when no rates were given
	rounds  int
	anew    int           // rounds after which the systems are started anew; 0: never
	wake    time.Duration // see system.wake
	stop    bool          // whose turn it is not is stopped
	format  string
	check   bool
}

// Cell is one measurement.
type Cell struct {
	System string `json:"system"`
	Round  int    `json:"round"`
	// Depth of a closed loop; 0 in an open loop.
	Depth int `json:"depth,omitempty"`
	// Rate of an open loop, requests per second; 0 in a closed loop.
	Rate   float64 `json:"rate,omitempty"`
	Result Result  `json:"result"`
	// ServerCPU is the system's processor time per request served, user and system, microseconds.
	ServerCPU float64 `json:"server_cpu_us"`
	// OthersCPU is what the idle systems used meanwhile, in per cent of one core.
	OthersCPU float64 `json:"others_cpu_percent"`
}

// compareCommand is "kaibench compare".
func compareCommand(ctx context.Context, args []string, out, note io.Writer) error {
	p, err := parsePlan(args, note)
	if err != nil {
		return err
	}
	r := &report{Command: shellJoin(append([]string{filepath.Base(os.Args[0]), "compare"}, args...)), Machine: machine(p.dir), Rounds: p.rounds, Anew: p.anew}
	p.systems = slices.DeleteFunc(p.systems, func(name string) bool {
		why := missing(name, p.binary(name))
		if why != "" && !slices.Contains(r.Notes, why) {
			r.Notes = append(r.Notes, why)
			fmt.Fprintln(note, "SKIPPED:", why)
		}
		return why != ""
	})
	if len(p.systems) == 0 {
		return fmt.Errorf("nothing to measure: %s", strings.Join(r.Notes, "; "))
	}
	if err := p.measure(ctx, r, note); err != nil {
		return err
	}
	r.sum()
	if p.format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		r.table(out)
	}
	if err == nil && p.check {
		err = r.verdict()
	}
	return err
}

func parsePlan(args []string, note io.Writer) (*plan, error) {
	p := &plan{load: defaultLoad()}
	p.load.Duration = 5 * time.Second
	fs := flag.NewFlagSet("kaibench compare", flag.ContinueOnError)
	loadFlags(fs, &p.load)
	fs.StringVar(&p.kai, "kai", "bin/kai", "path of the kai binary")
	fs.StringVar(&p.earlier, "earlier", "bin/kai-earlier", "path of another build, of systems named kai-3-interval"+earlier+" and the like: what a change is worth is the ratio to it")
	fs.StringVar(&p.dir, "dir", os.TempDir(), "where the systems keep their data while they run: the disk that is measured")
	fs.IntVar(&p.rounds, "rounds", 3, "rounds; each measures every system once per column, in turn")
	fs.IntVar(&p.anew, "anew", 0, "start the systems anew after so many rounds of the closed loops, 0 for never: two processes of one build may differ by more than what is looked for")
	fs.DurationVar(&p.wake, "wake", 6*time.Second, "how long a system that was stopped has to itself before it is measured: links are made again, replicas compared; with -stop=false all together, once they have started")
	fs.BoolVar(&p.stop, "stop", true, "stop systems whose turn it is not, so that they take nothing; false for many short rounds, in which a machine that changes its speed is alike for all")
	fs.StringVar(&p.format, "o", "table", "table or json")
	fs.BoolVar(&p.check, "check", false, "exit 1 when a figure is below its threshold, or cannot be compared")
	systems := fs.String("systems", strings.Join(systemNames(), ","), "systems to measure; kai-3-interval"+untraced+" and the like are without telemetry")
	depths := fs.String("depths", "1,16", "pipeline depths of the closed loops")
	rates := fs.String("rates", "", "rates of the open loops, requests per second; overrides -shares")
	shares := fs.String("shares", "25,50", "rates of the open loops, in per cent of what the slowest system sustains at depth 1 (or the least depth); 0 for none")
	if err := parse(fs, args, note); err != nil {
		return nil, err
	}
	p.systems = strings.Split(*systems, ",")
	for _, s := range p.systems {
		if !known(s) {
			return nil, usagef("-systems: %q is none of %s, perhaps with %s or %s behind a Kai's", s, strings.Join(systemNames(), ","), untraced, earlier)
		}
	}
	ds, err := numbers("depths", *depths)
	if err != nil {
		return nil, err
	}
	for _, d := range ds {
		p.depths = append(p.depths, int(d))
		p.load.Depth = int(d)
		p.load.Targets = []string{"-"}
		if err := p.load.check(); err != nil {
			return nil, err
		}
	}
	if p.rates, err = numbers("rates", *rates); err != nil {
		return nil, err
	}
	if p.shares, err = numbers("shares", *shares); err != nil {
		return nil, err
	}
	if p.anew < 0 || p.wake < 0 {
		return nil, usagef("-anew and -wake must not be negative")
	}
	if p.rounds < 1 || len(p.depths) == 0 || p.format != "table" && p.format != "json" {
		return nil, usagef("-rounds and -depths must not be empty; -o is table or json")
	}
	return p, nil
}

func numbers(name, list string) (out []float64, err error) {
	for _, s := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || f < 0 {
			return nil, usagef("-%s: %q is not a number", name, s)
		}
		if f > 0 {
			out = append(out, f)
		}
	}
	return out, nil
}

// measure starts all systems, preloads them, and fills r.Cells. The systems take turns within a round, so that a
// machine whose speed drifts bends the figures of all alike; those whose turn it is not are stopped (SIGSTOP), if p.stop.
func (p *plan) measure(ctx context.Context, r *report, note io.Writer) error {
	var all []*system
	closeAll := func() {
		for _, s := range all {
			s.close()
		}
		all = nil
	}
	defer func() { closeAll() }()
	for round := range p.rounds {
		if len(all) == 0 || p.anew > 0 && round%p.anew == 0 {
			closeAll()
			for _, name := range p.systems {
				s, err := p.start(ctx, name, note)
				all = append(all, s)
				if err != nil {
					return err
				}
				p.rest(s)
			}
			if !p.stop {
				for _, s := range all {
					if err := s.wake(ctx, p.wake/time.Duration(len(all))); err != nil {
						return fmt.Errorf("%s: %w", s.name, err)
					}
				}
			}
		}
		for _, depth := range p.depths {
			if err := p.column(ctx, r, all, Cell{Round: round, Depth: depth}, note); err != nil {
				return err
			}
		}
	}
	if len(p.rates) == 0 {
		slowest := r.slowest(p.depths[0])
		for _, share := range p.shares {
			p.rates = append(p.rates, max(1, roundTo(slowest*share/100, 100)))
		}
	}
	for round := range p.rounds {
		for _, rate := range p.rates {
			if err := p.column(ctx, r, all, Cell{Round: round, Rate: rate}, note); err != nil {
				return err
			}
		}
	}
	return nil
}

// binary is the build that a system runs, if it is a Kai.
func (p *plan) binary(name string) string {
	if strings.HasSuffix(strings.TrimSuffix(name, untraced), earlier) {
		return p.earlier
	}
	return p.kai
}

// start starts a system and stores all keys. Close it also after an error.
func (p *plan) start(ctx context.Context, name string, note io.Writer) (*system, error) {
	begun := time.Now()
	s, err := launch(ctx, name, p.binary(name), p.dir)
	if err != nil {
		return s, err
	}
	if err := p.fill(ctx, s); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(note, "%-15s started, %d keys stored, %.1f s\n", name, p.load.Keys, time.Since(begun).Seconds())
	return s, nil
}

// fill stores every key, through every node.
func (p *plan) fill(ctx context.Context, s *system) error {
	l := p.load
	l.Targets = s.targets
	clients, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	return l.preload(ctx, clients)
}

// column measures one cell of every system, one after the other.
func (p *plan) column(ctx context.Context, r *report, all []*system, cell Cell, note io.Writer) error {
	for _, s := range turns(all, cell.Round) {
		c := cell
		c.System = s.name
		l := p.load
		l.Targets, l.MustHit, l.Rate, l.Depth = s.targets, true, c.Rate, max(1, c.Depth)
		if p.stop {
			if err := s.wake(ctx, p.wake); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		before, others := s.cpu(), othersCPU(all, s)
		begun := time.Now()
		res, err := l.Run(ctx)
		if err == nil {
			err = s.alive()
		}
		if err == nil {
			err = res.fault()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		took := time.Since(begun)
		p.rest(s)
		c.Result = res
		served := res.OpsPerSecond * (l.Duration + l.Warmup).Seconds()
		c.ServerCPU = float64((s.cpu() - before).Microseconds()) / served
		c.OthersCPU = 100 * float64(othersCPU(all, s)-others) / float64(took)
		r.Cells = append(r.Cells, c)
		fmt.Fprintf(note, "round %d  %-11s  %-15s %8.0f op/s  get p50 %6.0f p99 %6.0f µs  set p50 %6.0f p99 %6.0f µs  server %5.1f µs CPU/op  %d errors\n",
			c.Round+1, c.column(), s.name, res.OpsPerSecond, res.Get.P50, res.Get.P99, res.Set.P50, res.Set.P99, c.ServerCPU, res.Errors())
	}
	return nil
}

// turns is the order of a round: nobody is always the first after the other loops, or comes always after the same one, which may have left work that goes on.
func turns(all []*system, round int) []*system {
	at := round / 2 % len(all)
	order := slices.Concat(all[at:], all[:at])
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// rest ends the turn of s.
func (p *plan) rest(s *system) {
	if p.stop {
		s.signal(sigStop)
	}
}

func othersCPU(all []*system, under *system) (sum time.Duration) {
	for _, s := range all {
		if s != under {
			sum += s.cpu()
		}
	}
	return sum
}

// column names what is measured the same for all systems.
func (c *Cell) column() string {
	if c.Rate > 0 {
		return fmt.Sprintf("open %.0f/s", c.Rate)
	}
	return fmt.Sprintf("depth %d", c.Depth)
}

func shellJoin(args []string) string {
	for i, a := range args {
		if a == "" || strings.ContainsAny(a, " '\"$\\|&;<>*?()`") {
			args[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(args, " ")
}

// memcachedVersion is what memcached -V says, or nothing.
func memcachedVersion() string {
	b, _ := exec.Command("memcached", "-V").Output()
	return strings.TrimSpace(string(b))
}
