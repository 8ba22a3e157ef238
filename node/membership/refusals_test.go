package membership

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOtherSettingsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		nodes := three(w, nil)
		odd := w.start(4, nodeAddr(4), &disk{}, func(o *Options) { o.Quorum.N, o.Quorum.R, o.Quorum.W = 5, 3, 3 })
		select {
		case <-odd.ended:
		case <-time.After(time.Minute):
			t.Fatal("still there")
		}
		for _, word := range []string{"quorum 3:2:2, partitions 64, vnodes 16", "quorum 5:3:3, partitions 64, vnodes 16", nodes[0].cluster()} {
			if odd.err == nil || !strings.Contains(odd.err.Error(), word) {
				t.Errorf("error lacks %q: %v", word, odd.err)
			}
		}
		if nodes[0].alive() != "1 2 3" {
			t.Errorf("let in: %s", nodes[0].alive())
		}
	})
}

// Before there is a cluster nobody knows who is right: both sides say so, none ends.
func TestOtherSettingsBeforeFounding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		w.seeds = []string{nodeAddr(1), nodeAddr(2)}
		a := w.start(1, nodeAddr(1), &disk{}, nil)
		b := w.start(2, nodeAddr(2), &disk{}, func(o *Options) { o.Partitions = 128 })
		time.Sleep(time.Minute)
		for _, n := range []*node{a, b} {
			if !n.logs.has("level=ERROR", "partitions 64", "partitions 128") || n.Stats().Refused == 0 {
				t.Errorf("node %s does not say both values", n.id)
			}
		}
	})
}

func TestFoundedSettingsOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		nodes := three(w, nil)
		w.close()
		for _, c := range []struct {
			change func(*Options)
			words  []string
		}{
			{func(o *Options) { o.Partitions = 128 }, []string{"partitions 128", "partitions 64"}},
			{func(o *Options) { o.Cluster = "other" }, []string{`"other"`, `"kai"`}},
		} {
			o := w.options(1, nodeAddr(1), nodes[0].disk, nodes[0].logs)
			c.change(&o)
			_, err := New(o)
			for _, word := range c.words {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("error lacks %q: %v", word, err)
				}
			}
		}
		m, err := New(w.options(1, nodeAddr(1), nodes[0].disk, nodes[0].logs))
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := m.Founded(); !ok || f.ClusterID != nodes[1].cluster() {
			t.Errorf("founding not loaded: %+v", f)
		}
		if v := m.View(); len(v.Nodes) != 3 || !v.Nodes[0].Alive || v.Nodes[1].Alive {
			t.Errorf("first view: %+v", v)
		}
	})
}

func TestClustersNeverMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		a := three(w, nil)
		// A second cluster of the same name is founded out of sight, then the wall falls.
		left := func(addr string) bool { return addr <= nodeAddr(3) }
		w.net.set(func() { w.net.cut = func(a, b string) bool { return left(a) != left(b) } })
		var b []*node
		w.seeds = nil
		for i := 1; i <= 6; i++ {
			w.seeds = append(w.seeds, nodeAddr(i))
		}
		for i := 4; i <= 6; i++ {
			b = append(b, w.start(i, nodeAddr(i), &disk{}, nil))
		}
		w.eventually(time.Minute, "second cluster", one(b...))
		if a[0].cluster() == b[0].cluster() {
			t.Fatal("the wall leaks")
		}
		w.net.set(func() { w.net.cut = func(a, b string) bool { return false } })
		time.Sleep(5 * time.Minute)
		if !all("1 2 3", a...)() || !all("4 5 6", b...)() {
			t.Errorf("merged: %q, %q", a[0].alive(), b[0].alive())
		}
		if !a[0].logs.has("level=ERROR", a[0].cluster(), b[0].cluster()) {
			t.Error("nobody says both ids")
		}
		// A node between them belongs to one at most, and the other does not count it.
		between := w.start(7, nodeAddr(7), &disk{}, nil)
		time.Sleep(2 * time.Minute)
		seenBy := map[string]string{a[0].cluster(): a[0].alive(), b[0].cluster(): b[0].alive()}
		for id, alive := range seenBy {
			if strings.Contains(alive, "7") != (id == between.cluster() || between.cluster() == "") {
				t.Errorf("cluster %s sees %s; the node between is in %q", id, alive, between.cluster())
			}
		}
		if mine := seenBy[between.cluster()]; between.cluster() != "" && between.alive() != mine {
			t.Errorf("the node between sees %q, its cluster %q", between.alive(), mine)
		}
	})
}

func TestRolledBackDiskIsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		starts int           // since the copy was made
		away   time.Duration // before the copy starts
	}{
		{"two starts", 2, 0}, {"one start", 1, 0}, {"one start, long ago", 1, 5 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				defer w.close()
				nodes := three(w, nil)
				d := &disk{}
				process := uint64(0)
				begin := func() *node { // no founder: those are never forgotten
					process++
					return w.start(4, nodeAddr(4), d, func(o *Options) { o.Self.Process = process })
				}
				n := begin()
				w.eventually(time.Minute, "joined", all("1 2 3 4", append(nodes, n)...))
				copied := FoundingState{}
				for i := range c.starts + 1 {
					n.stop()
					<-n.ended
					if i == 0 {
						copied, d.boot = d.state, 1
					}
					if i < c.starts {
						n = begin()
						w.eventually(time.Minute, "back", all("1 2 3 4", append(nodes, n)...))
					}
				}
				time.Sleep(c.away)
				d.state, d.boot = copied, 1
				back := begin()
				select {
				case <-back.ended:
				case <-time.After(time.Minute):
					t.Fatal("still there")
				}
				if back.err == nil || !strings.Contains(back.err.Error(), "rolled back") {
					t.Errorf("error: %v", back.err)
				}
				if err := nodes[0].Admit(nodeID(4), 2, process); c.starts > 0 && err == nil {
					t.Error("its links are let in")
				}
				if err := nodes[0].Admit(nodeID(4), uint64(c.starts)+2, process+1); err != nil {
					t.Errorf("the newer disk's next start is refused: %v", err)
				}
			})
		})
	}
}

func TestCopiedDiskIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		nodes := three(w, nil)
		time.Sleep(2 * newcomer)
		copied := &disk{state: nodes[2].disk.state, boot: nodes[2].disk.boot - 1}
		twin := w.start(3, nodeAddr(9), copied, nil)
		select {
		case <-twin.ended:
		case <-time.After(time.Minute):
			t.Fatal("still there")
		}
		if twin.err == nil || !strings.Contains(twin.err.Error(), "copy") {
			t.Errorf("error: %v", twin.err)
		}
		select {
		case <-nodes[2].ended:
			t.Errorf("the copy ended the original: %v", nodes[2].err)
		default:
		}
		w.eventually(time.Minute, "as before", all("1 2 3", nodes...))
	})
}
