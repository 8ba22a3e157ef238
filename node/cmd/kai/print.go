package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// printer writes for people; in colour on a terminal, unless NO_COLOR is set (no-color.org).
type printer struct {
	w      io.Writer
	colour bool
}

func (a app) printer() printer {
	return printer{a.stdout, a.terminal && a.environ["NO_COLOR"] == "" && a.environ["TERM"] != "dumb"}
}

func (p printer) good(s string) string { return p.paint("\x1b[32m", s) }
func (p printer) bad(s string) string  { return p.paint("\x1b[31m", s) }

const plain = "\x1b[0m"

func (p printer) paint(colour, s string) string {
	if !p.colour {
		return s
	}
	return colour + s + plain
}

// line prints s. What the reader of a pipe did not wait for is lost, like everywhere.
func (p printer) line(s string) { _, _ = fmt.Fprintln(p.w, s) }

// facts prints names and values in two columns.
func (p printer) facts(pairs [][2]string) {
	widest := 0
	for _, f := range pairs {
		widest = max(widest, utf8.RuneCountInString(f[0]))
	}
	for _, f := range pairs {
		p.line(fmt.Sprintf("%-*s  %s", widest, f[0], f[1]))
	}
}

// table prints rows in columns, the first row being the titles.
func (p printer) table(rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], width(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", widths[i]-width(cell)+2))
		}
		p.line(strings.TrimRight(b.String(), " "))
	}
}

// width is what a cell takes on the screen: paint is not seen.
func width(cell string) int {
	if rest, painted := strings.CutSuffix(cell, plain); painted {
		if _, text, ok := strings.Cut(rest, "m"); ok {
			return utf8.RuneCountInString(text)
		}
	}
	return utf8.RuneCountInString(cell)
}
