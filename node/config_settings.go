package node

import (
	"fmt"
	"reflect"
	"strings"
)

// Setting is one variable as it took effect, for people.
type Setting struct {
	Name string `json:"name"`
	// Value in effect; masked if it is secret.
	Value string `json:"value"`
	// Source is default, env or derived.
	Source string `json:"source"`
	// Default is as a variable would be written; empty if there is none.
	Default string `json:"default"`
	Meaning string `json:"meaning"`
}

// Settings lists every variable, in the order of Config. Secrets are masked.
func (c Config) Settings() []Setting {
	var all []Setting
	value := reflect.ValueOf(c)
	for _, field := range reflect.VisibleFields(value.Type()) {
		name := field.Tag.Get("env")
		if name == "" {
			continue
		}
		source := "default"
		switch {
		case c.given[name]:
			source = "env"
		case field.Name == "Advertise" && c.advertiseResolved:
			source = "derived"
		}
		all = append(all, Setting{
			Name: name, Value: fmt.Sprint(value.FieldByIndex(field.Index).Interface()), Source: source,
			Default: field.Tag.Get("envDefault"), Meaning: field.Tag.Get("means"),
		})
	}
	return all
}

// SettingsTable is the configuration table of the README, in Markdown. It does not depend on c's
// values.
func SettingsTable() string {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for _, s := range (Config{}).Settings() {
		def := "–"
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.Name, def, s.Meaning)
	}
	return b.String()
}
