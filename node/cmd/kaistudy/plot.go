package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
)

// line is one measure at one number of partitions (0 where they do not matter), over the number of nodes.
type line struct {
	label      string
	measures   []string // summed up
	partitions int
}

// panel is one of the picture's diagrams; both axes are logarithmic.
type panel struct {
	title string
	scale float64 // of the figures, to the title's unit
	lines []line
}

func panels() []panel {
	of := func(partitions int, label string, measures ...string) line { return line{label, measures, partitions} }
	return []panel{
		{"Fullest node, times the mean", 1, []line{
			of(1024, "ring alone, 1,024 partitions", "ring_spread"), of(65536, "ring alone, 65,536", "ring_spread"),
			of(1024, "plan, 1,024 partitions", "plan_spread"), of(65536, "plan, 65,536", "plan_spread")}},
		{"Moved when a node joins, times its share", 1, []line{
			of(1024, "ring alone, 1,024 partitions", "ring_moved_join1"), of(65536, "ring alone, 65,536", "ring_moved_join1"),
			of(1024, "plan, 1,024 partitions", "moved_join1"), of(65536, "plan, 65,536", "moved_join1")}},
		{"Look-up of a key's nodes, ns", 1, []line{
			of(1024, "1,024 partitions", "lookup"), of(16384, "16,384", "lookup"), of(65536, "65,536", "lookup")}},
		{"Memory of the whole map, MiB a node", 1.0 / (1 << 20), []line{
			of(1024, "1,024 partitions", "table_memory", "routes_memory"), of(16384, "16,384", "table_memory", "routes_memory"),
			of(65536, "65,536", "table_memory", "routes_memory"), of(0, "links", "links_memory")}},
		{"Plan when a node joins, ms", 1, []line{
			of(1024, "1,024 partitions", "plan_time"), of(16384, "16,384", "plan_time"), of(65536, "65,536", "plan_time"),
			of(65536, "65,536, three zones", "plan_time_zones")}},
		{"Traffic of an idle cluster, B/s a node", 1, []line{
			of(0, "gossip", "gossip_idle"), of(0, "links' heartbeats", "links_idle"), of(65536, "digests of 65,536 partitions", "exchange_digests")}},
	}
}

// Size of a panel and its margins, in the picture's units.
const (
	wide, high                = 400, 260
	left, right, above, below = 56, 16, 34, 34
	perRow                    = 2
)

var colours = []string{"#c2410c", "#d97706", "#1d4ed8", "#0f766e"}

// picture draws the figures as SVG.
func picture(f figures) []byte {
	all := panels()
	rows := (len(all) + perRow - 1) / perRow
	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"11\">\n", perRow*wide, rows*high)
	fmt.Fprintf(&b, "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n")
	for i, p := range all {
		fmt.Fprintf(&b, "<g transform=\"translate(%d %d)\">\n", i%perRow*wide, i/perRow*high)
		p.draw(&b, f)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// points of a line, by nodes; where one of its measures is missing there is none.
func (l line) points(f figures, scale float64) (xs, ys []float64) {
	for _, g := range f {
		if g.measure != l.measures[0] || g.partitions != l.partitions {
			continue
		}
		sum, found := g.value, 1
		for _, more := range l.measures[1:] {
			for _, h := range f {
				if h.measure == more && h.partitions == g.partitions && h.nodes == g.nodes {
					sum, found = sum+h.value, found+1
				}
			}
		}
		if found == len(l.measures) && sum > 0 {
			xs, ys = append(xs, float64(g.nodes)), append(ys, sum*scale)
		}
	}
	return xs, ys
}

func (p panel) draw(b *bytes.Buffer, f figures) {
	fmt.Fprintf(b, "<text x=\"%d\" y=\"18\" font-size=\"13\" font-weight=\"bold\">%s</text>\n", left, p.title)
	x, y := axis{2, 1500, left, wide - right}, axis{math.Inf(1), math.Inf(-1), high - below, above}
	for _, l := range p.lines {
		if _, ys := l.points(f, p.scale); len(ys) > 0 {
			y.from, y.to = min(y.from, slices.Min(ys)), max(y.to, slices.Max(ys))
		}
	}
	if y.from > y.to {
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\">not measured</text>\n", left, high/2)
		return
	}
	// Room for the legend: two of seven parts of the height.
	y.from /= 1.15
	y.to *= max(2.2, math.Pow(y.to/y.from, 2.0/5))
	for _, n := range []float64{3, 10, 30, 100, 300, 1000} {
		fmt.Fprintf(b, "<path d=\"M%.1f %dV%d\" stroke=\"#e5e7eb\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", x.at(n), above, high-below, x.at(n), high-below+14, short(n))
	}
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" fill=\"#6b7280\">nodes</text>\n", wide-right, high-6)
	for _, v := range y.ticks() {
		fmt.Fprintf(b, "<path d=\"M%d %.1fH%d\" stroke=\"#e5e7eb\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", left, y.at(v), wide-right, left-5, y.at(v)+4, short(v))
	}
	for i, l := range p.lines {
		xs, ys := l.points(f, p.scale)
		var path string
		for k := range xs {
			path += fmt.Sprintf("%c%.1f %.1f", "ML"[min(k, 1)], x.at(xs[k]), y.at(ys[k]))
			fmt.Fprintf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>", x.at(xs[k]), y.at(ys[k]), colours[i])
		}
		fmt.Fprintf(b, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"/>\n", path, colours[i])
		column, row := i%2, i/2
		fmt.Fprintf(b, "<rect x=\"%d\" y=\"%d\" width=\"10\" height=\"3\" fill=\"%s\"/><text x=\"%d\" y=\"%d\">%s</text>\n",
			left+4+column*172, above+6+row*14, colours[i], left+18+column*172, above+11+row*14, l.label)
	}
}

// axis maps from..to to a..b by logarithms.
type axis struct{ from, to, a, b float64 }

func (a axis) at(v float64) float64 {
	return a.a + (a.b-a.a)*math.Log(v/a.from)/math.Log(a.to/a.from)
}

// ticks are round numbers, some two to eight.
func (a axis) ticks() (ticks []float64) {
	for _, steps := range [][]float64{{1}, {1, 3}, {1, 2, 5}, {1, 1.5, 2, 3, 5, 7}, {1, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 8}} {
		ticks = ticks[:0]
		for e := math.Floor(math.Log10(a.from)); e <= math.Log10(a.to); e++ {
			for _, s := range steps {
				if v := s * math.Pow(10, e); v >= a.from && v <= a.to {
					ticks = append(ticks, v)
				}
			}
		}
		if len(ticks) >= 4 {
			break
		}
	}
	return ticks
}

// short writes a number as people say it.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.4gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.4gk", v/1e3)
	}
	return fmt.Sprintf("%.4g", v)
}
