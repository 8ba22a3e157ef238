package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"strconv"
)

// figure is one measured number; partitions is 0 where they do not matter.
type figure struct {
	measure           string
	nodes, partitions int
	value             float64
	unit              string
}

type figures []figure

func (f *figures) add(measure string, nodes, partitions int, value float64, unit string) {
	*f = append(*f, figure{measure, nodes, partitions, value, unit})
}

func (f figures) write(path string) error {
	var b bytes.Buffer
	for _, g := range f {
		fmt.Fprintf(&b, "%s,%d,%d,%.4g,%s\n", g.measure, g.nodes, g.partitions, g.value, g.unit)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

func readFigures(path string) (figures, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rows := csv.NewReader(bytes.NewReader(b))
	rows.FieldsPerRecord = 5
	all, err := rows.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var f figures
	for _, row := range all {
		nodes, err1 := strconv.Atoi(row[1])
		partitions, err2 := strconv.Atoi(row[2])
		value, err3 := strconv.ParseFloat(row[3], 64)
		if err1 != nil || err2 != nil || err3 != nil {
			return nil, fmt.Errorf("%s: not a figure: %q", path, row)
		}
		f.add(row[0], nodes, partitions, value, row[4])
	}
	return f, nil
}
