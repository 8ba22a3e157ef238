package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is the outcome of compare.
type report struct {
	Command string   `json:"command"`
	Machine string   `json:"machine"`
	Rounds  int      `json:"rounds"`
	Anew    int      `json:"anew"` // see plan
	Notes   []string `json:"notes,omitempty"`
	Cells   []Cell   `json:"cells"`
	Rows    []Row    `json:"rows"`
	Checks  []Check  `json:"checks,omitempty"`
}

// Row holds the medians over all rounds of one system in one column. Ratios are taken within a
// round, to memcached of the same round, and then their median; 0 when there was no memcached.
type Row struct {
	Column       string  `json:"column"`
	System       string  `json:"system"`
	OpsPerSecond float64 `json:"ops_per_second"`
	Ratio        float64 `json:"ops_ratio"`
	Get          Latency `json:"get"`
	GetP99Ratio  float64 `json:"get_p99_ratio"`
	Set          Latency `json:"set"`
	ServerCPU    float64 `json:"server_cpu_us"`
	LoaderCPU    float64 `json:"loader_cpu_us"`
	OthersCPU    float64 `json:"others_cpu_percent"`
	Errors       uint64  `json:"errors"`
}

// sum makes Rows and Checks of Cells.
func (r *report) sum() {
	var columns []string
	for _, c := range r.Cells {
		if !slices.Contains(columns, c.column()) {
			columns = append(columns, c.column())
		}
	}
	for _, col := range columns {
		for _, sys := range r.systems() {
			r.Rows = append(r.Rows, r.row(col, sys))
		}
	}
	r.check()
}

// cells of one column and system, in the order of rounds.
func (r *report) cells(column, system string) (out []Cell) {
	for _, c := range r.Cells {
		if c.column() == column && c.System == system {
			out = append(out, c)
		}
	}
	return out
}

// ratio is the median of f of a system to that of another one in the same round; 0 if there is none.
func (r *report) ratio(column, system, base string, f func(c *Cell) float64) float64 {
	return median(r.ratios(column, system, base, f))
}

func (r *report) ratios(column, system, base string, f func(c *Cell) float64) (v []float64) {
	cells, others := r.cells(column, system), r.cells(column, base)
	for i := range min(len(cells), len(others)) {
		if b := f(&others[i]); b > 0 {
			v = append(v, f(&cells[i])/b)
		}
	}
	return v
}

// uncertainty is the standard error of the median of v, one value a round; 0 if that cannot be told. Processes are the same for anew rounds (0: for all): two of one build
// differ, too, so that it goes by the medians of their rounds, too, if there are enough.
func uncertainty(v []float64, anew int) (e float64) {
	if len(v) < 3 {
		return 0
	}
	if anew > 0 && len(v) >= 3*anew {
		var medians []float64
		for rounds := range slices.Chunk(v, anew) {
			medians = append(medians, median(rounds))
		}
		e = deviation(medians) / math.Sqrt(float64(len(medians)))
	}
	v = slices.Sorted(slices.Values(v))
	// The quartiles, because a few rounds are far off.
	sigma := (v[len(v)*3/4] - v[len(v)/4]) / 1.35
	return max(e, 1.25*sigma/math.Sqrt(float64(len(v))))
}

// deviation is the standard deviation of what v, at least two, are samples of.
func deviation(v []float64) float64 {
	mean, squares := 0.0, 0.0
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		squares += (x - mean) * (x - mean)
	}
	return math.Sqrt(squares / float64(len(v)-1))
}

func (r *report) row(column, system string) Row {
	cells := r.cells(column, system)
	med := func(f func(c *Cell) float64) float64 {
		var v []float64
		for i := range cells {
			v = append(v, f(&cells[i]))
		}
		return median(v)
	}
	ratio := func(f func(c *Cell) float64) float64 { return r.ratio(column, system, memcachedName, f) }
	latency := func(of func(c *Cell) Latency) Latency {
		return Latency{
			Count: int64(med(func(c *Cell) float64 { return float64(of(c).Count) })),
			P50:   med(func(c *Cell) float64 { return of(c).P50 }),
			P99:   med(func(c *Cell) float64 { return of(c).P99 }),
			P999:  med(func(c *Cell) float64 { return of(c).P999 }),
			Max:   med(func(c *Cell) float64 { return of(c).Max }),
		}
	}
	row := Row{
		Column: column, System: system,
		OpsPerSecond: med(func(c *Cell) float64 { return c.Result.OpsPerSecond }),
		Ratio:        ratio(func(c *Cell) float64 { return c.Result.OpsPerSecond }),
		Get:          latency(func(c *Cell) Latency { return c.Result.Get }),
		GetP99Ratio:  ratio(func(c *Cell) float64 { return c.Result.Get.P99 }),
		Set:          latency(func(c *Cell) Latency { return c.Result.Set }),
		ServerCPU:    med(func(c *Cell) float64 { return c.ServerCPU }),
		LoaderCPU:    med(func(c *Cell) float64 { return c.Result.LoaderCPU }),
		OthersCPU:    med(func(c *Cell) float64 { return c.OthersCPU }),
	}
	for _, c := range cells {
		row.Errors += c.Result.Errors()
	}
	return row
}

// median is 0 for no values.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// systems are those that were measured.
func (r *report) systems() (all []string) {
	for _, c := range r.Cells {
		if !slices.Contains(all, c.System) {
			all = append(all, c.System)
		}
	}
	return all
}

// slowest is the least median throughput of all systems in a closed loop.
func (r *report) slowest(depth int) float64 {
	least := math.Inf(1)
	for _, name := range r.systems() {
		if row := r.row(fmt.Sprintf("depth %d", depth), name); row.OpsPerSecond > 0 {
			least = min(least, row.OpsPerSecond)
		}
	}
	return least
}

func roundTo(v, unit float64) float64 { return math.Round(v/unit) * unit }

func (r *report) table(out io.Writer) {
	fmt.Fprintf(out, "%s\n%s\nmedians of %d rounds; latencies and processor times in µs; ×: ratio to memcached of the same round\n", r.Command, r.Machine, r.Rounds)
	for _, n := range r.Notes {
		fmt.Fprintln(out, "SKIPPED:", n)
	}
	column := ""
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, w := range r.Rows {
		if w.Column != column {
			t.Flush()
			column = w.Column
			fmt.Fprintf(out, "\n%s\n", strings.ToUpper(column))
			fmt.Fprintln(t, "system\top/s\t×\tget p50\tp99\tp99 ×\tp99.9\tmax\tset p50\tp99\tp99.9\tmax\tserver CPU/op\tloader CPU/op\tothers % core\terrors\t")
		}
		fmt.Fprintf(t, "%s\t%.0f\t%s\t%.0f\t%.0f\t%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.1f\t%.1f\t%.1f\t%d\t\n",
			w.System, w.OpsPerSecond, times(w.Ratio), w.Get.P50, w.Get.P99, times(w.GetP99Ratio), w.Get.P999, w.Get.Max,
			w.Set.P50, w.Set.P99, w.Set.P999, w.Set.Max, w.ServerCPU, w.LoaderCPU, w.OthersCPU, w.Errors)
	}
	t.Flush()
	if len(r.Checks) > 0 {
		fmt.Fprintln(out, "\nTHRESHOLDS")
	}
	for _, c := range r.Checks {
		fmt.Fprintln(out, c)
	}
}

func times(ratio float64) string {
	if ratio == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", ratio)
}

// Check is one threshold of the project (issue 2, "What it must show"; for telemetry issue 6).
type Check struct {
	System string  `json:"system"`
	Base   string  `json:"base"`
	Column string  `json:"column"`
	What   string  `json:"what"`
	Got    float64 `json:"got"`
	Error  float64 `json:"error"` // of Got, by how much the rounds differ; 0: unknown
	Limit  float64 `json:"limit"`
	Passed bool    `json:"passed"`
}

func (c Check) String() string {
	word, sign := "ok  ", "≥"
	if !c.Passed {
		word = "MISS"
	}
	if c.What == whatP99 {
		sign = "≤"
	}
	return fmt.Sprintf("%s  %-14s  %-12s  %s %.2f ± %.2f × that of %s, must be %s %.2f", word, c.System, c.Column, c.What, c.Got, c.Error, c.Base, sign, c.Limit)
}

const (
	whatOps = "throughput"
	whatP99 = "p99 of gets"
)

// check compares every ratio there is with its threshold. The p99 of gets is held to its limit at
// equal rates (open loops): in a closed loop a slower system is also asked less.
func (r *report) check() {
	least := map[string]map[string]float64{
		"kai-1": {"depth 1": 0.8, "depth 16": 2},
		"kai-3": {"depth 1": 0.35, "depth 16": 1},
	}
	ops := func(c *Cell) float64 { return c.Result.OpsPerSecond }
	p99 := func(c *Cell) float64 { return c.Result.Get.P99 }
	hold := func(w Row, base, what string, f func(c *Cell) float64, limit float64) {
		v := r.ratios(w.Column, w.System, base, f)
		if len(v) == 0 {
			return
		}
		anew := 0
		if strings.HasPrefix(w.Column, "depth") { // open loops have the last processes of those
			anew = r.Anew
		}
		c := Check{System: w.System, Base: base, Column: w.Column, What: what, Got: median(v), Error: uncertainty(v, anew), Limit: limit}
		if c.Passed = c.Got >= limit; what == whatP99 {
			c.Passed = c.Got <= limit
		}
		r.Checks = append(r.Checks, c)
	}
	for _, w := range r.Rows {
		if strings.HasPrefix(w.Column, "depth") {
			hold(w, w.System+untraced, whatOps, ops, 0.97)
		}
		hold(w, w.System+earlier, whatOps, ops, 0)
		if w.System == memcachedName || plain(w.System) != w.System {
			continue
		}
		kind := w.System[:len("kai-1")]
		if limit := least[kind][w.Column]; limit > 0 {
			hold(w, memcachedName, whatOps, ops, limit)
		}
		if kind == "kai-3" && strings.HasPrefix(w.Column, "open") {
			hold(w, memcachedName, whatP99, p99, 1.5)
		}
	}
}

// verdict is the error that -check exits with.
func (r *report) verdict() error {
	if len(r.Checks) == 0 {
		return errors.New("-check: nothing could be compared with memcached")
	}
	missed := 0
	for _, c := range r.Checks {
		if !c.Passed {
			missed++
		}
	}
	if missed > 0 {
		return fmt.Errorf("-check: %d of %d figures miss their threshold", missed, len(r.Checks))
	}
	return nil
}
