package node

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "kai/"

// rooms is the house: every package of the module and what it may import of the module, tests
// aside. Imports point downward only. A package below a room belongs to that room.
var rooms = map[string][]string{
	"node/rawio":      {},
	"node/ring":       {},
	"node/clock":      {},
	"node/record":     {},
	"node/console":    {},
	"backup":          {},
	"discovery":       {},
	"telemetry":       {},
	"terraform":       {},
	"node/message":    {"node/record", "node/ring"},
	"node/memcache":   {"node/rawio", "node/record"},
	"node/flight":     {"node/clock", "node/record", "node/ring", "node/message"},
	"node/quorum":     {"node/clock", "node/flight", "node/record", "node/ring", "node/message"},
	"node/replica":    {"node/clock", "node/record", "node/ring", "node/message"},
	"node/peer":       {"node/clock", "node/rawio", "node/record", "node/ring", "node/message"},
	"node/store":      {"node/rawio", "node/record", "node/ring"},
	"node/placement":  {"node/flight", "node/record", "node/ring", "node/message"},
	"node/repair":     {"node/flight", "node/record", "node/ring", "node/message"},
	"node/membership": {"node/ring"},
	"node": {"backup", "discovery", "node/clock", "node/console", "node/flight", "node/membership", "node/memcache", "node/message", "node/peer",
		"node/placement", "node/quorum", "node/record", "node/repair", "node/replica", "node/ring", "node/store"},
	"node/nodetest":     {everything},
	"node/e2e":          {everything},
	"node/cmd/kai":      {everything, "telemetry"},
	"node/cmd/kaibench": {everything},
	"node/cmd/kaistudy": {everything},
}

// everything is all rooms but telemetry, which node/cmd/kai alone starts, and those that are only
// for tests or are commands.
const everything = "everything"

func TestImportsPointDownward(t *testing.T) {
	for _, p := range packages(t) {
		from, known := room(p.ImportPath)
		if !known {
			t.Errorf("%s is in no room; add it to the table, and to node/DESIGN.md", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module) {
				continue
			}
			if to, _ := room(imported); to != from && !mayImport(from, to) {
				t.Errorf("%s imports %s: %q may import %q only", p.ImportPath, imported, from, rooms[from])
			}
		}
	}
}

// What must stay out of the data path's packages: configuration is given to them, never fetched.
func TestOnlyTheAssemblyReadsTheEnvironment(t *testing.T) {
	for _, p := range packages(t) {
		if from, _ := room(p.ImportPath); from != "node" && slices.Contains(p.Imports, "github.com/caarlos0/env/v11") {
			t.Errorf("%s reads the environment; node/config.go is the only reader", p.ImportPath)
		}
	}
}

func mayImport(from, to string) bool {
	if slices.Contains(rooms[from], to) {
		return true
	}
	closed := to == "telemetry" || to == "node/nodetest" || to == "node/e2e" || strings.HasPrefix(to, "node/cmd/")
	return slices.Contains(rooms[from], everything) && !closed
}

// room is the longest room that the package is in.
func room(importPath string) (string, bool) {
	name := strings.TrimPrefix(importPath, module)
	for {
		if _, ok := rooms[name]; ok && (name != "node" || importPath == module+"node") {
			return name, true
		}
		at := strings.LastIndexByte(name, '/')
		if at < 0 {
			return importPath, false
		}
		name = name[:at]
	}
}

type listed struct {
	ImportPath string
	Imports    []string
}

// packages lists all packages of the module with their direct imports outside tests; what follows
// from imports of imports is held by the rooms in between.
func packages(t *testing.T) []listed {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command:", err)
	}
	cmd := exec.CommandContext(t.Context(), goTool, "list", "-e", "-json=ImportPath,Imports", module+"...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		t.Fatal("no packages listed")
	}
	return all
}
