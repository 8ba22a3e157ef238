package ring

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Weight is how much a node is to hold, in thousandths of what an ordinary node does. 0 counts as
// WeightOne: it is what nodes say that know of no weights.
type Weight uint32

const (
	// WeightOne is an ordinary node's.
	WeightOne Weight = 1000
	// MinWeight and MaxWeight bound what a node may be given.
	MinWeight Weight = WeightOne / 10
	MaxWeight Weight = WeightOne * 10
)

// Thousandths is the weight as a number that is never 0.
func (w Weight) Thousandths() int {
	if w == 0 {
		return int(WeightOne)
	}
	return int(w)
}

// String is a decimal number such as 1.0 or 0.25.
func (w Weight) String() string {
	s := strconv.FormatFloat(float64(w.Thousandths())/float64(WeightOne), 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// ParseWeight reads a decimal number from 0.1 to 10, rounded to thousandths.
func ParseWeight(s string) (Weight, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	w := math.Round(f * float64(WeightOne))
	if !(w >= float64(MinWeight) && w <= float64(MaxWeight)) { // also NaN
		return 0, fmt.Errorf("%s is not between %s and %s", s, MinWeight, MaxWeight)
	}
	return Weight(w), nil
}

// Weighted is a node that may hold partitions, and how much of them.
type Weighted struct {
	Node
	Weight Weight
}
