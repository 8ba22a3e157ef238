package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The picture in the repository is that of the figures beside it.
func TestPictureIsOfTheFigures(t *testing.T) {
	svg := filepath.Join(t.TempDir(), "study.svg")
	if code := run([]string{"-draw", "-figures", "../../study.csv", "-plot", svg}); code != exitOK {
		t.Fatalf("exit %d", code)
	}
	drawn, err := os.ReadFile(svg)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile("../../study.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(drawn, kept) {
		t.Error("node/study.svg is not what node/study.csv gives: bin/kaistudy -draw -figures node/study.csv -plot node/study.svg")
	}
	for _, p := range panels() {
		if !bytes.Contains(kept, []byte(p.title)) {
			t.Errorf("no panel %q", p.title)
		}
	}
	if bytes.Contains(kept, []byte("not measured")) || bytes.Contains(kept, []byte("NaN")) || bytes.Contains(kept, []byte("Inf")) {
		t.Error("a panel without figures")
	}
}

// Every line of the picture has figures, for at least five sizes of the cluster.
func TestFiguresCoverThePicture(t *testing.T) {
	all, err := readFigures("../../study.csv")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range panels() {
		for _, l := range p.lines {
			if xs, _ := l.points(all, p.scale); len(xs) < 5 || !slices.IsSorted(xs) {
				t.Errorf("%s, %s: at %v nodes", p.title, l.label, xs)
			}
		}
	}
}

func TestFiguresAreKept(t *testing.T) {
	var all figures
	all.add("lookup", 1000, 65536, 31.96, "ns")
	all.add("gossip_idle", 3, 0, 427.3, "B/s a node")
	path := filepath.Join(t.TempDir(), "f.csv")
	if err := all.write(path); err != nil {
		t.Fatal(err)
	}
	if again, err := readFigures(path); err != nil || !slices.Equal(again, all) {
		t.Errorf("%v, %v", again, err)
	}
	for _, bad := range []string{"lookup,1,2,3\n", "lookup,one,2,3,ns\n", "lookup,1,2,much,ns\n"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readFigures(path); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// The study runs the real code; a small map has the figures that are known beforehand.
func TestStudyMap(t *testing.T) {
	var all figures
	studyMap(&all, 3, 64)
	of := func(measure string) float64 {
		for _, g := range all {
			if g.measure == measure {
				return g.value
			}
		}
		t.Errorf("no %s", measure)
		return 0
	}
	// Three nodes hold everything; the fourth takes a quarter of 192 replicas.
	if s, m := of("plan_spread"), of("moved_join1_replicas"); s != 1 || m != 48 {
		t.Errorf("spread %v, moved %v", s, m)
	}
	if of("lookup") <= 0 || of("map_size") <= 0 {
		t.Error("nothing measured")
	}
}
