//go:build linux

package e2e

import (
	"os"
	"strings"
	"testing"
)

// said is one line of a story told in order: a command and its reply.
type said struct {
	q command
	r reply
}

// tell makes a history of operations that follow each other, but that those of unknown fate never return.
func tell(story []said) *history {
	h := newHistory()
	id := h.identity()
	for _, s := range story {
		call := h.now()
		s.q.key = "k"
		h.add(id, s.q, s.r, call)
		if s.r.fate == unknown {
			id = h.identity()
		}
	}
	return h
}

func set(v string) command          { return command{verb: "set", value: v} }
func app(v string) command          { return command{verb: "append", value: v} }
func get() command                  { return command{verb: "get"} }
func gets() command                 { return command{verb: "gets"} }
func del() command                  { return command{verb: "delete"} }
func word(w string) reply           { return reply{word: w} }
func lost() reply                   { return reply{fate: unknown, why: "connection reset"} }
func refused() reply                { return reply{fate: notApplied} }
func value(v string) reply          { return reply{word: "VALUE", value: v} }
func seen(v string, t uint64) reply { return reply{word: "VALUE", value: v, token: t} }
func cas(v string, t uint64) command {
	return command{verb: "cas", value: v, token: t}
}
func incr(by, to uint64) said {
	return said{command{verb: "incr", delta: by}, reply{word: "NUMBER", number: to}}
}

// TestCheckerRejects tests the test: each of these histories holds one lie, and must be found out.
func TestCheckerRejects(t *testing.T) {
	for name, story := range map[string][]said{
		"lost write":             {{set("1"), word("STORED")}, {get(), word("END")}},
		"stale read":             {{set("1"), word("STORED")}, {set("2"), word("STORED")}, {get(), value("1")}},
		"value from nowhere":     {{set("1"), word("STORED")}, {get(), value("2")}},
		"read goes back":         {{set("1"), word("STORED")}, {set("2"), lost()}, {get(), value("2")}, {get(), value("1")}},
		"refused, yet applied":   {{set("1"), word("STORED")}, {set("2"), refused()}, {get(), value("2")}},
		"applied twice":          {{set("1"), word("STORED")}, {app("2"), lost()}, {get(), value("122")}},
		"counted twice":          {{set("1"), word("STORED")}, incr(1, 3)},
		"deleted, yet there":     {{set("1"), word("STORED")}, {del(), word("DELETED")}, {get(), value("1")}},
		"cas with a stale token": {{set("1"), word("STORED")}, {gets(), seen("1", 7)}, {set("2"), word("STORED")}, {cas("3", 7), word("STORED")}},
		"cas refused its token":  {{set("1"), word("STORED")}, {gets(), seen("1", 7)}, {cas("3", 7), word("EXISTS")}},
		"token changes alone":    {{set("1"), word("STORED")}, {gets(), seen("1", 7)}, {gets(), seen("1", 8)}},
		"token used again":       {{set("1"), word("STORED")}, {gets(), seen("1", 7)}, {set("2"), word("STORED")}, {gets(), seen("2", 7)}},
		"add over a value":       {{set("1"), word("STORED")}, {command{verb: "add", value: "2"}, word("STORED")}},
		"decr below zero":        {{set("10"), word("STORED")}, {command{verb: "decr", delta: 11}, reply{word: "NUMBER", number: 1<<64 - 1}}},
		"pad forgotten":          {{set("10"), word("STORED")}, {command{verb: "decr", delta: 1}, reply{word: "NUMBER", number: 9}}, {get(), value("9")}},
		"nonsense":               {{get(), reply{fate: senseless, why: "OK"}}},
	} {
		if why, _ := tell(story).illegal(); why == "" {
			t.Errorf("%s: not found out", name)
		}
	}
}

// TestCheckerAccepts: what may happen must not be called a lie.
func TestCheckerAccepts(t *testing.T) {
	for name, story := range map[string][]said{
		"all quiet":               {{get(), word("END")}, {set("1"), word("STORED")}, {get(), value("1")}, {del(), word("DELETED")}, {get(), word("END")}},
		"unknown, not applied":    {{set("1"), word("STORED")}, {set("2"), lost()}, {get(), value("1")}},
		"unknown, applied":        {{set("1"), word("STORED")}, {set("2"), lost()}, {get(), value("2")}},
		"unknown, applied late":   {{set("1"), word("STORED")}, {set("2"), lost()}, {get(), value("1")}, {get(), value("2")}},
		"unknown, over a later":   {{set("1"), lost()}, {set("2"), word("STORED")}, {get(), value("2")}, {get(), value("1")}},
		"refused":                 {{set("1"), word("STORED")}, {set("2"), refused()}, {get(), value("1")}},
		"cas":                     {{set("1"), word("STORED")}, {gets(), seen("1", 7)}, {cas("2", 7), word("STORED")}, {cas("3", 7), word("EXISTS")}},
		"cas, token of a touched": {{set("1"), word("STORED")}, {gets(), seen("1", 7)}, {command{verb: "touch"}, word("TOUCHED")}, {cas("2", 7), word("STORED")}},
		"padded":                  {{set("10"), word("STORED")}, {command{verb: "decr", delta: 1}, reply{word: "NUMBER", number: 9}}, {get(), value("9 ")}, incr(91, 100)},
		"text does not count":     {{set("x"), word("STORED")}, {command{verb: "incr", delta: 1}, word("NON_NUMERIC")}},
	} {
		if why, _ := tell(story).illegal(); why != "" {
			t.Errorf("%s: %s", name, why)
		}
	}
}

// TestPicture draws a false history.
func TestPicture(t *testing.T) {
	h := tell([]said{{set("1"), word("STORED")}, {set("2"), lost()}, {get(), value("3")}})
	h.fault(0, "kill -9 node a")
	_, ops := h.illegal()
	path := h.picture(ops)
	defer os.Remove(path)
	if html, err := os.ReadFile(path); err != nil || !strings.Contains(string(html), "kill -9 node a") {
		t.Errorf("%s: %v", path, err)
	}
}

// TestJudge: which replies a command may get, and what they say about its effect.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		verb, line string
		want       fate
	}{
		{"set", "STORED", definite},
		{"set", "NOT_STORED", senseless},
		{"set", "EXISTS", senseless},
		{"set", "", senseless},
		{"set", "ERROR", senseless},
		{"set", "12", senseless},
		{"get", "END", definite},
		{"get", "STORED", senseless},
		{"incr", "12", definite},
		{"incr", "CLIENT_ERROR cannot increment or decrement non-numeric value", definite},
		{"set", "CLIENT_ERROR cannot increment or decrement non-numeric value", senseless},
		{"set", "SERVER_ERROR unavailable (not applied): no quorum", notApplied},
		{"set", "SERVER_ERROR timeout (outcome unknown)", unknown},
		{"set", "SERVER_ERROR corrupt: checksum", senseless},
		{"set", "SERVER_ERROR", senseless},
	} {
		if r := (command{verb: c.verb}).judge(c.line); r.fate != c.want {
			t.Errorf("%s → %q: fate %d, want %d", c.verb, c.line, r.fate, c.want)
		}
	}
}
