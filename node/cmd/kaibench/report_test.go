package main

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

func cell(system string, round, depth int, rate, ops, p99 float64) Cell {
	return Cell{System: system, Round: round, Depth: depth, Rate: rate, Result: Result{OpsPerSecond: ops, Get: Latency{Count: 1, P99: p99}}}
}

// TestReport checks that ratios are taken within a round, and thresholds at their edges.
func TestReport(t *testing.T) {
	r := &report{Rounds: 3, Cells: []Cell{
		// The machine got slower from round to round: the medians alone would give 100/200.
		cell(memcachedName, 0, 1, 0, 400, 1), cell("kai-1-always", 0, 1, 0, 360, 1), cell("kai-3-always", 0, 1, 0, 100, 1),
		cell(memcachedName, 1, 1, 0, 200, 1), cell("kai-1-always", 1, 1, 0, 180, 1), cell("kai-3-always", 1, 1, 0, 80, 1),
		cell(memcachedName, 2, 1, 0, 100, 1), cell("kai-1-always", 2, 1, 0, 90, 1), cell("kai-3-always", 2, 1, 0, 30, 1),
		cell(memcachedName, 0, 0, 100, 100, 10), cell("kai-1-always", 0, 0, 100, 100, 99), cell("kai-3-always", 0, 0, 100, 100, 15),
	}}
	r.sum()
	want := map[string]float64{"kai-1-always": 0.9, "kai-3-always": 0.3}
	for _, w := range r.Rows {
		if ratio := want[w.System]; w.Column == "depth 1" && ratio > 0 && w.Ratio != ratio {
			t.Errorf("%s: ratio %v, want %v", w.System, w.Ratio, ratio)
		}
	}
	if len(r.Checks) != 3 {
		t.Fatalf("checks: %v", r.Checks)
	}
	for i, passed := range []bool{true, false, true} {
		if r.Checks[i].Passed != passed {
			t.Errorf("%v", r.Checks[i])
		}
	}
	if err := r.verdict(); err == nil || !strings.Contains(err.Error(), "1 of 3") {
		t.Errorf("verdict: %v", err)
	}
	var out strings.Builder
	r.table(&out)
	for _, part := range []string{"DEPTH 1", "OPEN 100/S", "MISS  kai-3-always"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %q in\n%s", part, &out)
		}
	}
}

// TestReportAlone: without memcached there is nothing to take a ratio to, and -check must say so.
func TestReportAlone(t *testing.T) {
	r := &report{Cells: []Cell{cell("kai-1-always", 0, 1, 0, 360, 1)}}
	r.sum()
	if r.Rows[0].Ratio != 0 || len(r.Checks) != 0 || r.verdict() == nil {
		t.Errorf("%+v", r)
	}
}

// TestCompare measures memcached with the whole machinery of compare.
func TestCompare(t *testing.T) {
	if why := missing(memcachedName, ""); why != "" {
		t.Skip("SKIPPED:", why)
	}
	dir := t.TempDir()
	var out, note strings.Builder
	code := command(t.Context(), []string{"compare", "-systems", "memcached", "-dir", dir, "-rounds", "1",
		"-duration", "50ms", "-warmup", "0", "-keys", "100", "-conns", "2", "-shares", "10", "-wake", "0"}, &out, &note)
	if code != exitOK {
		t.Fatalf("exit %d:\n%s", code, &note)
	}
	for _, part := range []string{"DEPTH 1\n", "DEPTH 16\n", "OPEN ", "cores"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %q in\n%s", part, &out)
		}
	}
}

// With -anew, systems are started again.
func TestAnew(t *testing.T) {
	if why := missing(memcachedName, ""); why != "" {
		t.Skip("SKIPPED:", why)
	}
	var out, note strings.Builder
	code := command(t.Context(), []string{"compare", "-systems", "memcached", "-dir", t.TempDir(), "-rounds", "5", "-anew", "2", "-wake", "0",
		"-duration", "20ms", "-warmup", "0", "-keys", "100", "-conns", "2", "-shares", "0", "-depths", "1"}, &out, &note)
	if starts, rounds := strings.Count(note.String(), " started"), strings.Count(note.String(), "round "); code != exitOK || starts != 3 || rounds != 5 {
		t.Errorf("exit %d, %d starts, %d rounds:\n%s", code, starts, rounds, &note)
	}
}

// The error of a median is told by how much the rounds differ, and how much the processes: of medians of 120 rounds, two thirds are within it.
func TestUncertainty(t *testing.T) {
	for _, test := range []struct {
		anew  int
		spoil float64 // of processes
	}{{0, 0}, {4, 0.1}, {4, 0}} {
		r, within := rand.New(rand.NewPCG(1, 2)), 0
		for range 1000 {
			v, process := make([]float64, 120), 0.0
			for i := range v {
				if test.anew > 0 && i%test.anew == 0 {
					process = test.spoil * r.NormFloat64()
				}
				v[i] = 1 + process + 0.1*r.NormFloat64()
			}
			if math.Abs(median(v)-1) <= uncertainty(v, test.anew) {
				within++
			}
		}
		if within < 600 || within > 760 {
			t.Errorf("%v: %d of 1000 medians are within one standard error", test, within)
		}
	}
}

// Systems that are not stopped are measured, too.
func TestUnstopped(t *testing.T) {
	if why := missing(memcachedName, ""); why != "" {
		t.Skip("SKIPPED:", why)
	}
	var out, note strings.Builder
	code := command(t.Context(), []string{"compare", "-systems", "memcached", "-dir", t.TempDir(), "-rounds", "3", "-stop=false", "-wake", "0",
		"-duration", "20ms", "-warmup", "0", "-keys", "100", "-conns", "2", "-shares", "0", "-depths", "1"}, &out, &note)
	if rounds := strings.Count(note.String(), "round "); code != exitOK || rounds != 3 {
		t.Errorf("exit %d, %d rounds:\n%s", code, rounds, &note)
	}
}

// What telemetry costs is the ratio to the same Kai without it, in the same round.
func TestUntraced(t *testing.T) {
	r := &report{Rounds: 3}
	for round, with := range []float64{97, 50, 99} {
		for system, ops := range map[string]float64{"kai-3-interval": with, "kai-3-interval" + untraced: 100} {
			r.Cells = append(r.Cells, Cell{System: system, Round: round, Depth: 16, Result: Result{OpsPerSecond: ops}})
		}
	}
	r.sum()
	if len(r.Checks) != 1 || r.Checks[0].Got != 0.97 || r.Checks[0].Error < 0.2 || !r.Checks[0].Passed || !strings.Contains(r.Checks[0].String(), "that of kai-3-interval-untraced") {
		t.Errorf("%v", r.Checks)
	}
	if known("memcached"+untraced) || !known("kai-1-always"+untraced) || known("kai-2") {
		t.Error("systems that are not there")
	}
}

// In a few rounds each system comes as often at each place, and as often after each of its neighbours.
func TestTurns(t *testing.T) {
	all := []*system{{name: "a"}, {name: "b"}, {name: "c"}, {name: "d"}}
	places, after := map[string]int{}, map[string]int{}
	for round := range 2 * len(all) {
		order := turns(all, round)
		for i, s := range order {
			places[s.name+strconv.Itoa(i)]++
			if i > 0 {
				after[order[i-1].name+s.name]++
			}
		}
	}
	for place, n := range places {
		if n != 2 {
			t.Errorf("%s %d times instead of 2", place, n)
		}
	}
	for _, pair := range []string{"ab", "ba", "bc", "cb", "cd", "dc", "da", "ad"} {
		if after[pair] != 3 {
			t.Errorf("%s %d times instead of 3", pair, after[pair])
		}
	}
}
