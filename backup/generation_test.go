package backup

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Of many that found a generation, or end it, at once, one does, and all hear which; the newest generation is found.
func TestGenerations(t *testing.T) {
	everyBucket(t, func(t *testing.T, b *Bucket) {
		const name = "a name/with what ever"
		if f, s, err := Generations(t.Context(), b, name); f != nil || s != nil || err != nil {
			t.Fatalf("of nothing: %+v, %+v, %v", f, s, err)
		}
		for generation := uint32(9); generation < 12; generation++ {
			heard, ended := make([]string, 8), make([]string, 8)
			var wait sync.WaitGroup
			for i := range heard {
				wait.Go(func() {
					f, err := Found(t.Context(), b, Founded{Name: name, Generation: generation, Cluster: fmt.Sprint("c", i), At: time.Now().UTC(), Founding: json.RawMessage(`{"a":1}`)})
					if err != nil {
						t.Error(err)
						return
					}
					heard[i] = f.Cluster
				})
			}
			wait.Wait()
			for _, h := range heard {
				if h != heard[0] {
					t.Fatalf("generation %d is %v", generation, heard)
				}
			}
			f, s, err := Generations(t.Context(), b, name)
			if err != nil || s != nil || f.Generation != generation || f.Cluster != heard[0] || string(f.Founding) != `{"a":1}` {
				t.Fatalf("%+v, %+v, %v", f, s, err)
			}
			for i := range ended {
				wait.Go(func() {
					s, err := Seal(t.Context(), b, name, Sealed{Generation: generation, Cluster: f.Cluster, Snapshot: fmt.Sprint("s", i), At: time.Now().UTC()})
					if err != nil {
						t.Error(err)
						return
					}
					ended[i] = s.Snapshot
				})
			}
			wait.Wait()
			for _, e := range ended {
				if e != ended[0] {
					t.Fatalf("generation %d ends with %v", generation, ended)
				}
			}
			if _, s, err = Generations(t.Context(), b, name); err != nil || s == nil || s.Snapshot != ended[0] || s.Cluster != f.Cluster {
				t.Fatalf("%+v, %v", s, err)
			}
		}
		if f, _, err := Generations(t.Context(), b, "another"); f != nil || err != nil {
			t.Errorf("another name: %+v, %v", f, err)
		}
	})
}
