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
	cells, others := r.cells(column, system), r.cells(column, base)
	var v []float64
	for i := range min(len(cells), len(others)) {
		if b := f(&others[i]); b > 0 {
			v = append(v, f(&cells[i])/b)
		}
	}
	return median(v)
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
	return fmt.Sprintf("%s  %-14s  %-12s  %s %.2f × that of %s, must be %s %.2f", word, c.System, c.Column, c.What, c.Got, c.Base, sign, c.Limit)
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
	for _, w := range r.Rows {
		const traced = 0.97
		if got := r.ratio(w.Column, w.System, w.System+untraced, func(c *Cell) float64 { return c.Result.OpsPerSecond }); got > 0 && strings.HasPrefix(w.Column, "depth") {
			r.Checks = append(r.Checks, Check{w.System, w.System + untraced, w.Column, whatOps, got, traced, got >= traced})
		}
		if got := r.ratio(w.Column, w.System, w.System+earlier, func(c *Cell) float64 { return c.Result.OpsPerSecond }); got > 0 {
			r.Checks = append(r.Checks, Check{w.System, w.System + earlier, w.Column, whatOps, got, 0, true})
		}
		if w.System == memcachedName || w.Ratio == 0 || plain(w.System) != w.System {
			continue
		}
		kind := w.System[:len("kai-1")]
		if limit := least[kind][w.Column]; limit > 0 {
			r.Checks = append(r.Checks, Check{w.System, memcachedName, w.Column, whatOps, w.Ratio, limit, w.Ratio >= limit})
		}
		if kind == "kai-3" && strings.HasPrefix(w.Column, "open") {
			const limit = 1.5
			r.Checks = append(r.Checks, Check{w.System, memcachedName, w.Column, whatP99, w.GetP99Ratio, limit, w.GetP99Ratio <= limit})
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
