package nodetest

import (
	"testing"
	"time"
	"fmt"

	"kai/node/quorum"
)

func TestDbg(t *testing.T) {
	for _, doubt := range []int{50, 80} {
		for _, slow := range []int{20, 50} {
			for _, keys := range []int{1, 2} {
				m := with(base(fmt.Sprint("fence ", doubt, slow, keys)), func(s *Scenario) {
					s.Config.Mutant = LostFence
					s.Trouble = Trouble{Quick: true}
					s.Config.Faults = Faults{Drop: 3, Slow: slow, Doubt: doubt}
					s.Load.Keys = keys
					s.Load.Ops = 9
				})
				st := time.Now()
				sum := playMany(t, m, 0, 2000, func(*tally) bool { return time.Since(st) > 12*time.Second })
				t.Logf("%s: %d of %d (undecided %d)", m.Name, len(sum.illegal), sum.histories, sum.undecided)
				for _, drop := range []int{5, 20} {
				m = with(base(fmt.Sprint("seal ", doubt, slow, keys, drop)), func(s *Scenario) {
					s.Config.Without = quorum.RuleSeal
					s.Trouble = Trouble{Partitions: true}
					s.Config.Faults = Faults{Drop: drop, Slow: slow, Doubt: doubt}
					s.Load = Load{Clients: 5, Ops: 8, Keys: keys, Conditional: true}
				})
				st = time.Now()
				sum = playMany(t, m, 0, 20000, func(*tally) bool { return time.Since(st) > 12*time.Second })
				t.Logf("%s: %d of %d (undecided %d) %v", m.Name, len(sum.illegal), sum.histories, sum.undecided, sum.counters)
				}
			}
		}
	}
}
