//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestBootstrap gives a node an empty disk, again and again, while clients write and snapshots are taken. What it is to hold it loads from the
// bucket, and from its peers only what has changed since; it is killed amid that, too. Nothing that was deleted comes back. Without the bucket all comes from
// the peers.
func TestBootstrap(t *testing.T) {
	s, count, rounds, killed := seed(t), records(t), 2, 0
	partitions, wanted := 16, 0.5 // of few records, clients change many meanwhile
	if count >= 500_000 {
		partitions, wanted = 1024, 0.9
	} else if os.Getenv("KAI_E2E_SOAK") != "" {
		rounds = 51
	}
	limit := 2*slow + time.Duration(count)*time.Millisecond
	dir := filepath.Join(t.TempDir(), "bucket")
	url := "file://" + dir
	c := start(t, 3, fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_REPLACE_AFTER=3s", "KAI_PURGE_AFTER=1s", "KAI_BACKUP_URL="+url, "KAI_BACKUP_INTERVAL=0")
	c.loadRecords(count)
	gone := c.fill(0, "gone", 400)
	l := c.load(s, c.nodes[:2]...)
	fresh := c.nodes[2]
	replace := func(amid func()) (loaded, pulled int64) {
		t.Helper()
		began := time.Now()
		fresh.kill()
		if err := os.RemoveAll(fresh.data); err != nil {
			t.Fatal(err)
		}
		if err := fresh.start(); err != nil {
			t.Fatal(err)
		}
		amid()
		eventually(t, limit, "the node is replaced", func() error { return c.balanced(3 * partitions) })
		loaded, err1 := fresh.metric("kai_transfer_loaded_bytes_total")
		pulled, err2 := fresh.metric("kai_transfer_bytes_total")
		records, err3 := fresh.metric("kai_transfer_loaded_records_total")
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		t.Logf("replaced after %.1f s: %d bytes (%d records) from the bucket, %d from peers, %.1f %%", time.Since(began).Seconds(), loaded, records, pulled, 100*float64(loaded)/float64(loaded+pulled))
		return loaded, pulled
	}
	cl := c.client(0)
	r := rand.New(rand.NewPCG(s, 9))
	for round := range rounds {
		c.mustKai("backup", "create", "--url", url, "--name", fmt.Sprintf("s%03d", round), "--admin", c.nodes[0].admin())
		n := len(gone) * (round + 1) / rounds
		for _, k := range gone[len(gone)*round/rounds : n] {
			must(t, cl, "DELETED", command{verb: "delete", key: k})
		}
		if round == 0 {
			if loaded, pulled := replace(func() {}); float64(loaded) < wanted*float64(loaded+pulled) {
				t.Errorf("%d bytes from the bucket, %d from peers", loaded, pulled)
			}
		} else {
			replace(func() {
				time.Sleep(time.Duration(r.Int64N(int64(6 * time.Second))))
				killed++
				fresh.kill()
				if err := fresh.start(); err != nil {
					t.Fatal(err)
				}
			})
		}
		for i, k := range gone[:n] {
			must(t, c.client(i%3), "END", command{verb: "get", key: k})
		}
	}
	if err := errors.Join(os.Rename(dir, dir+"-away"), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if loaded, _ := replace(func() {}); loaded != 0 {
		t.Errorf("%d bytes from a bucket that is away", loaded)
	}
	t.Logf("killed %d times while it loaded, or before or after that", killed)
	l.verify(t, c)
	c.checkRecords(count)
	for i, k := range gone {
		must(t, c.client(i%3), "END", command{verb: "get", key: k})
	}
}
