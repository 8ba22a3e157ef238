//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// churnBytes is how large the values are that come and go.
const churnBytes = 1000

// churnAll stores values under the keys of a round, and deletes them.
func (c *client) churnAll(round int, batch []int) error {
	if err := c.nc.SetDeadline(time.Now().Add(5 * patience)); err != nil {
		return err
	}
	out := bufio.NewWriter(c.nc)
	value := strings.Repeat("c", churnBytes)
	for _, i := range batch {
		fmt.Fprintf(out, "set churn-%d-%d 0 0 %d\r\n%s\r\n", round, i, churnBytes, value)
	}
	for _, i := range batch {
		fmt.Fprintf(out, "delete churn-%d-%d\r\n", round, i)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	var failed error
	for range 2 * len(batch) {
		line, err := c.line()
		if err != nil {
			return err
		}
		if line != "STORED" && line != "DELETED" && line != "NOT_FOUND" { // the last one when it is done again
			failed = fmt.Errorf("%q", line)
		}
	}
	return failed
}

// purged is how many dead records the cluster has forgotten.
func (c *cluster) purged() (sum int64, err error) {
	for _, n := range c.live() {
		v, err := n.metric("kai_repair_purged_total")
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// TestChurn: keys come and go, and leave nothing behind: no tombstone in memory or on the disk, while what stays is untouched. With
// the long tests so much of it that the disk would tell.
func TestChurn(t *testing.T) {
	rounds, keys := 1, 3000
	if os.Getenv("KAI_E2E_SOAK") != "" {
		rounds, keys = 20, 20_000 // 400 MB, three times
	}
	c := start(t, 3, "KAI_PARTITIONS=64", "KAI_PURGE_AFTER=1s", "KAI_CACHE_BYTES=16MiB")
	const kept = 10_000
	c.loadRecords(kept)
	churn := func(round int) {
		c.shareOut(keys, func(cl *client, batch []int) error { return cl.churnAll(round, batch) })
	}
	forgotten := func(want int) {
		began := time.Now()
		eventually(t, 3*slow, "all that was deleted is forgotten", func() error {
			n, err := c.purged()
			if err == nil && n < int64(want) {
				err = fmt.Errorf("%d of %d", n, want)
			}
			return err
		})
		t.Logf("%d deleted records forgotten after %.0f s", want, time.Since(began).Seconds())
	}
	size := func() (sum int64) {
		for _, n := range c.live() {
			sum += diskUse(t, n.data)
		}
		return sum
	}
	churn(0)
	forgotten(keys)
	before := size()
	for round := 1; round < rounds; round++ {
		churn(round)
	}
	forgotten(rounds * keys)
	written := int64(3 * (rounds - 1) * keys * churnBytes)
	after := size()
	t.Logf("%.0f MB written on three nodes; their disks: %.0f MB before, %.0f MB after", float64(written)/1e6, float64(before)/1e6, float64(after)/1e6)
	if limit := before + max(written/4, 256<<20); after > limit {
		t.Errorf("the disks hold %d bytes, at most %d wanted", after, limit)
	}
	since := c.passes()
	eventually(t, 2*slow, "nothing differs", func() error { return c.alike(since) })
	c.checkRecords(kept)
	cl := c.client(1)
	for i := 0; i < keys; i += keys / 100 {
		must(t, cl, "END", command{verb: "get", key: fmt.Sprintf("churn-0-%d", i)})
	}
}

// diskUse is what a directory takes: allocated blocks, since files have holes.
func diskUse(t *testing.T, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go while we look
		}
		if info, err := d.Info(); err == nil {
			sum += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
