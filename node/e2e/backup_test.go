//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kai/backup/buckettest"
)

// kai runs the command line, and returns what it prints.
func (c *cluster) kai(args ...string) (string, error) {
	out, err := exec.Command(os.Getenv("KAI_E2E_BIN"), args...).CombinedOutput()
	return string(out), err
}

func (c *cluster) mustKai(args ...string) string {
	c.t.Helper()
	out, err := c.kai(args...)
	if err != nil {
		c.t.Fatalf("kai %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	c.t.Logf("kai %s ...: %s", strings.Join(args[:2], " "), strings.TrimSpace(out))
	return out
}

// TestBackup takes snapshots while clients write, destroys all nodes and their disks, and restores into five others: what was
// acknowledged before is there, what was deleted is not back. Then one bit in the bucket is changed.
func TestBackup(t *testing.T) {
	t.Run("file", func(t *testing.T) { backUp(t, "file://"+t.TempDir()) })
	t.Run("s3", func(t *testing.T) {
		backUp(t, buckettest.S3(t), "KAI_BACKUP_KEY=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	})
	t.Run("gcs", func(t *testing.T) { backUp(t, buckettest.GCS(t)) })
}

// snapshotTaken is when the first of all nodes began with a snapshot, and when the last had ended, as they say once it is complete.
func (c *cluster) snapshotTaken(name string) (from, to time.Time) {
	c.t.Helper()
	for _, n := range c.live() {
		eventually(c.t, slow, "node "+n.name+" has taken snapshot "+name, func() error {
			for line := range strings.Lines(n.logged()) {
				var said struct {
					Time                time.Time
					Msg, Snapshot, Took string
				}
				if json.Unmarshal([]byte(line), &said) != nil || said.Msg != "snapshot complete" || said.Snapshot != name {
					continue
				}
				took, err := time.ParseDuration(said.Took)
				if began := said.Time.Add(-took); from.IsZero() || began.Before(from) {
					from = began
				}
				if said.Time.After(to) {
					to = said.Time
				}
				return err
			}
			return errors.New("it does not say so")
		})
	}
	return from, to
}

func backUp(t *testing.T, url string, env ...string) {
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value) // for the command line
	}
	path, dir := strings.CutPrefix(url, "file://")
	s, count := seed(t), records(t)
	partitions := 256
	if count > 100_000 {
		partitions = 1024 // a leaf is a few records: of a changed one all are uploaded
	}
	old := start(t, 3, append(env, fmt.Sprintf("KAI_PARTITIONS=%d", partitions), "KAI_BACKUP_URL="+url, "KAI_BACKUP_INTERVAL=0", "KAI_PURGE_AFTER=1s")...)
	old.loadRecords(count)
	keys := old.fill(0, "kept", 200)
	cl := old.client(1)
	for i := range 100 {
		must(t, cl, "STORED", command{verb: "set", key: fmt.Sprint("gone-", i), value: "x"})
		must(t, cl, "DELETED", command{verb: "delete", key: fmt.Sprint("gone-", i)})
	}
	before := old.load(s, old.nodes...)
	gets := old.probe(count)
	time.Sleep(time.Duration(min(2+count/100_000, 10)) * time.Second)
	calm, _ := gets.lap()
	before.stop()
	during := old.load(s+1, old.nodes...)
	old.mustKai("backup", "create", "--url", url, "--name", "one", "--admin", old.nodes[0].admin())
	from, to := old.snapshotTaken("one") // nodes see it half a minute after it was begun, and clients would feel nothing until then
	gets.within(from, to)
	t.Logf("gets beside the first snapshot, %.1f s: %s", to.Sub(from).Seconds(), gets.beside(calm))
	gets.end()
	keys = append(keys, old.fill(0, "later", count/100)...)
	second := time.Now()
	old.mustKai("backup", "create", "--url", url, "--name", "two", "--admin", old.nodes[2].admin())
	during.stop()
	var shown [2]struct {
		Records, Bytes, Uploaded int64
		State                    string
	}
	for i, name := range []string{"one", "two"} {
		if err := json.Unmarshal([]byte(old.mustKai("backup", "show", name, "--url", url, "-o", "json")), &shown[i]); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := shown[0], shown[1]; a.State != "complete" || b.State != "complete" || b.Records < a.Records+int64(count/100) {
		t.Errorf("first %+v, second %+v", a, b)
	} else if most := 0.05 + 5*float64(b.Records-a.Records)/float64(a.Records); float64(b.Uploaded) > most*float64(a.Uploaded) {
		t.Errorf("first %+v, second %+v: more than %.2f of it", a, b, most)
	}
	names := []string{"one", "two"}
	if dir || count > 100_000 { // nodes look for snapshots each half minute elsewhere
		names = append(names, "quiet", "small")
		old.mustKai("backup", "create", "--url", url, "--name", "quiet", "--admin", old.nodes[1].admin())
		old.loadRecords(count / 100) // again: 1 % of the records change, in as many leaves
		old.mustKai("backup", "create", "--url", url, "--name", "small", "--admin", old.nodes[1].admin())
		var small struct{ Records, Uploaded int64 }
		if err := json.Unmarshal([]byte(old.mustKai("backup", "show", "small", "--url", url, "-o", "json")), &small); err != nil {
			t.Fatal(err)
		}
		t.Logf("after 1 %% was written again: %.1f %% of the first", 100*float64(small.Uploaded)/float64(shown[0].Uploaded))
		if small.Records < shown[1].Records || small.Uploaded > shown[0].Uploaded/10 {
			t.Errorf("first %+v, after 1 %% was written again %+v", shown[0], small)
		}
	}
	for _, n := range old.live() {
		eventually(t, slow, "node "+n.name+" knows of the second snapshot", func() error { // it looks every 30 s in a cloud
			age, err := n.metric("kai_backup_age_seconds")
			if since := time.Since(second).Seconds(); err == nil && float64(age) > since+1 {
				err = fmt.Errorf("its newest snapshot is %d s old, the second was begun %.0f s ago", age, since)
			}
			return err
		})
		if failures, err := n.metric("kai_backup_failures_total"); err != nil || failures > 0 {
			t.Errorf("node %s: %d failures, %v", n.name, failures, err)
		}
	}
	var puts, bytes int64
	for _, n := range old.live() {
		p, err1 := n.metric("kai_backup_puts_total")
		b, err2 := n.metric("kai_backup_bytes_total")
		if err := errors.Join(err1, err2); err != nil {
			t.Error(err)
		}
		puts, bytes = puts+p, bytes+b
	}
	t.Logf("%d snapshots by three nodes: %d PUTs, %d bytes", len(names), puts, bytes)
	if out := old.mustKai("status", "--admin", old.nodes[1].admin()); !strings.Contains(out, "newest snapshot") {
		t.Error("kai status does not say how old the newest snapshot is")
	}
	old.mustKai("backup", "verify", "--read-data", "--url", url)

	// Into the cluster it was taken from: what is newer stays, above all deletions, which are not forgotten before a later snapshot.
	must(t, cl, "STORED", command{verb: "set", key: keys[3], value: "newer"})
	for _, k := range keys[4:100] {
		must(t, cl, "DELETED", command{verb: "delete", key: k})
	}
	rest := 20 * time.Second
	if os.Getenv("KAI_E2E_SOAK") != "" {
		rest = 2 * time.Minute // in which deletions are forgotten that need not wait for a snapshot
	}
	time.Sleep(rest)
	if out, err := old.kai("backup", "restore", "one", "--url", url, "--admin", old.nodes[0].admin()); err == nil || !strings.Contains(out, "--older") {
		t.Errorf("an older snapshot is taken back: %s", out)
	}
	old.mustKai("backup", "restore", "--url", url, "--admin", old.nodes[0].admin())
	if r, _ := cl.do(command{verb: "get", key: keys[3]}); r.value != "newer" {
		t.Errorf("a newer value became %q", r.value)
	}
	for _, k := range keys[4:100] {
		must(t, cl, "END", command{verb: "get", key: k})
	}
	for _, n := range old.nodes {
		n.kill()
		if err := os.RemoveAll(n.data); err != nil {
			t.Fatal(err)
		}
	}

	var drill struct{ Restored, Compared, Different int64 }
	if err := json.Unmarshal([]byte(old.mustKai("backup", "drill", "--url", url, "--dir", t.TempDir(), "-o", "json")), &drill); err != nil {
		t.Fatal(err)
	}
	if drill.Restored < int64(count) || drill.Compared < drill.Restored || drill.Different != 0 {
		t.Errorf("drill: %+v", drill)
	}
	fresh := start(t, 5, "KAI_PARTITIONS=64")
	began := time.Now()
	fresh.mustKai("backup", "restore", "--url", url, "--admin", fresh.nodes[3].admin())
	t.Logf("%d records restored in %.1f s, %.0f a second", shown[1].Records, time.Since(began).Seconds(), float64(shown[1].Records)/time.Since(began).Seconds())
	fresh.checkRecords(count)
	fresh.holds(keys)
	before.ledger.verify(t, fresh)
	cl = fresh.client(0)
	for i := range 100 {
		must(t, cl, "END", command{verb: "get", key: fmt.Sprint("gone-", i)})
	}
	// Again: what is newer stays, and is overwritten only if asked to.
	must(t, cl, "STORED", command{verb: "set", key: keys[0], value: "newer"})
	must(t, cl, "DELETED", command{verb: "delete", key: keys[1]})
	must(t, cl, "DELETED", command{verb: "delete", key: keys[2]})
	fresh.mustKai("backup", "restore", "--url", url, "--admin", fresh.nodes[0].admin(), "--prefix", keys[0])
	if r, _ := cl.do(command{verb: "get", key: keys[0]}); r.value != "newer" {
		t.Errorf("a newer value became %q", r.value)
	}
	if out := fresh.mustKai("backup", "restore", "--url", url, "--admin", fresh.nodes[0].admin(), "--key", keys[1], "--overwrite"); !strings.Contains(out, " 1 records brought back") {
		t.Errorf("one key: %s", out)
	}
	fresh.holds(keys[1:2])
	must(t, cl, "END", command{verb: "get", key: keys[2]})

	if !dir {
		return // package backup damages others
	}
	packs, err := filepath.Glob(filepath.Join(path, "packs", "*", "*.kp"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	content, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 4
	if err := os.WriteFile(packs[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	named := false
	for _, name := range names {
		out, err := fresh.kai("backup", "verify", name, "--read-data", "--url", url)
		named = named || err != nil && strings.Contains(out, filepath.Base(packs[0]))
	}
	if !named {
		t.Error("a changed bit is not named")
	}
	failed := 0
	for _, name := range names {
		if _, err := fresh.kai("backup", "drill", name, "--url", url, "--dir", t.TempDir()); err != nil {
			failed++
		}
	}
	if failed == 0 {
		t.Error("a damaged snapshot passes a drill")
	}
}
