package telemetry

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// served is what /metrics has: by METRICS.md, which a test of package node holds to the code, and by the collectors of Go and of the process.
func served(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(kai_[a-z_]+)` \\| ([a-z]+) ").FindAllStringSubmatch(read(t, "METRICS.md"), -1) {
		names[m[1]] = true
		if m[2] == "histogram" {
			names[m[1]+"_bucket"], names[m[1]+"_count"], names[m[1]+"_sum"] = true, true, true
		}
	}
	if len(names) < 50 {
		t.Fatalf("METRICS.md names %d metrics", len(names))
	}
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		names[f.GetName()] = true
	}
	return names
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// expressions are those of all dashboards, by where they stand.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("dashboards/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: %d dashboards", err, len(files))
	}
	all := map[string]string{}
	for _, file := range files {
		var board struct {
			Panels []struct {
				Title   string
				Targets []struct{ RefID, Expr string }
			}
		}
		if err := json.Unmarshal([]byte(read(t, file)), &board); err != nil {
			t.Fatal(err)
		}
		for _, p := range board.Panels {
			for _, q := range p.Targets {
				all[file+", "+p.Title+", "+q.RefID] = q.Expr
			}
		}
	}
	return all
}

// Rules and dashboards name only metrics that are served, and recorded ones that are recorded.
func TestNamesAreServed(t *testing.T) {
	names, rules := served(t), read(t, "alerts/kai.rules.yml")
	recorded := map[string]bool{}
	for _, m := range regexp.MustCompile(`record: (\S+)`).FindAllStringSubmatch(rules, -1) {
		recorded[m[1]] = true
	}
	texts := expressions(t)
	for i, m := range regexp.MustCompile(`(?m)^ +expr: (.*)$`).FindAllStringSubmatch(rules, -1) {
		texts["rule "+string(rune('0'+i/10))+string(rune('0'+i%10))] = m[1]
	}
	word := regexp.MustCompile(`\b(?:kai|go|process)[_:][a-z0-9_:]+`)
	for where, expr := range texts {
		for _, name := range word.FindAllString(expr, -1) {
			if !names[name] && !recorded[name] && name != "go_version" {
				t.Errorf("%s: %s is not served", where, name)
			}
		}
	}
	// And the page of alerts can be acted on.
	for _, alert := range strings.Split(rules, "- alert: ")[1:] {
		name, _, _ := strings.Cut(alert, "\n")
		for _, part := range []string{"severity: page", "severity: ticket"} {
			if strings.Contains(alert, part) {
				alert += " has a severity"
			}
		}
		for _, part := range []string{"summary: ", "runbook: ", " has a severity"} {
			if !strings.Contains(alert, part) {
				t.Errorf("%s lacks %q", name, part)
			}
		}
	}
}

// Prometheus' own tool reads all expressions, and runs the rules' tests.
func TestPromtool(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("SKIPPED: promtool is not installed (apt-get install prometheus)")
	}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboards\n  rules:\n")
	for where, expr := range expressions(t) {
		quoted, err := json.Marshal(strings.ReplaceAll(expr, "$__rate_interval", "5m"))
		if err != nil {
			t.Fatal(err)
		}
		name, err := json.Marshal(where)
		if err != nil {
			t.Fatal(err)
		}
		rules.WriteString("  - record: dashboard\n    labels: {where: " + string(name) + "}\n    expr: " + string(quoted) + "\n")
	}
	file := filepath.Join(t.TempDir(), "dashboards.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", file}, {"check", "rules", "alerts/kai.rules.yml"}, {"test", "rules", "alerts/kai.test.yml"}} {
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
