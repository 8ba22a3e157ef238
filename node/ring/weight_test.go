package ring

import (
	"slices"
	"testing"
)

func TestParseWeight(t *testing.T) {
	for text, want := range map[string]Weight{"1": 1000, "1.0": 1000, " 0.1": 100, "10": 10000, "2.5": 2500, "0.3333": 333} {
		w, err := ParseWeight(text)
		if err != nil || w != want {
			t.Errorf("%q: %d, %v", text, w, err)
		}
		if again, err := ParseWeight(w.String()); err != nil || again != w {
			t.Errorf("%q: %s, %v", text, w, err)
		}
	}
	for _, text := range []string{"", "x", "0", "0.09", "10.1", "-1", "NaN", "Inf", "1e9"} {
		if w, err := ParseWeight(text); err == nil {
			t.Errorf("%q: %d", text, w)
		}
	}
	if Weight(0).String() != "1.0" || Weight(0).Thousandths() != 1000 {
		t.Error("no weight is not an ordinary one")
	}
}

// Equal weights, whatever they are, change nothing; unequal ones give tokens and favour in proportion.
func TestWeightedLists(t *testing.T) {
	const partitions = 1024
	nodes := testNodes(6, "a", "b")
	weighted := make([]Weighted, len(nodes))
	want := PreferenceLists(nodes, partitions, 3, 128)
	for i, node := range nodes {
		weighted[i] = Weighted{node, WeightOne}
	}
	for p, list := range WeightedLists(weighted, partitions, 3, 128) {
		if !slices.Equal(list, want[p]) {
			t.Fatalf("partition %d: %v, with weights %v", p, want[p], list)
		}
	}
	weighted = weighted[:3]
	weighted[1].Weight = 2 * WeightOne
	first := map[NodeID]int{}
	for _, list := range WeightedLists(weighted, partitions, 3, 128) {
		first[list[0]]++
	}
	for _, node := range weighted {
		share := float64(partitions) * float64(node.Weight) / 4000
		if got := float64(first[node.ID]); got > 1.05*share+1 || got < 0.85*share {
			t.Errorf("weight %s: %v partitions, its share is %v", node.Weight, got, share)
		}
	}
}
