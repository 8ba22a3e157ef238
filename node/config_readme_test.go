package node

import (
	"os"
	"strings"
	"testing"
)

// The README's configuration table and Config say the same, both ways: the test compares the whole
// table. When it fails, paste what it prints.
func TestReadmeConfigurationTable(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- configuration: begin -->\n", "<!-- configuration: end -->"
	_, rest, found := strings.Cut(string(readme), begin)
	table, _, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("README.md lacks the lines %q and %q", begin, end)
	}
	if want := SettingsTable(); table != want {
		t.Errorf("the table in README.md differs from node.Config; it should be:\n%s", want)
	}
}
