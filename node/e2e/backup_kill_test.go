//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBackupIsKilled kills at random moments: a node amid a snapshot; a node, or the command, amid a restore; the command amid a prune. What was
// begun goes on, or is done again; each snapshot that is complete is whole, and all that was acknowledged before is restored.
func TestBackupIsKilled(t *testing.T) {
	s := seed(t)
	r := rand.New(rand.NewPCG(s, 7))
	rounds, count := 2, 5_000
	if os.Getenv("KAI_E2E_SOAK") != "" {
		rounds, count = 50, 20_000
	}
	url := "file://" + t.TempDir()
	c := start(t, 3, "KAI_PARTITIONS=64", "KAI_BACKUP_URL="+url, "KAI_BACKUP_INTERVAL=0")
	into := start(t, 1, "KAI_PARTITIONS=16")
	c.loadRecords(count)
	// during runs a command, and kills its target after a random time.
	during := func(limit time.Duration, kill func(cmd *exec.Cmd), args ...string) (out string, err error) {
		var text strings.Builder
		cmd := exec.Command(os.Getenv("KAI_E2E_BIN"), args...)
		cmd.Stdout, cmd.Stderr = &text, &text
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(r.Int64N(int64(limit))))
		kill(cmd)
		err = cmd.Wait()
		return text.String(), err
	}
	died, failed := map[string]int{}, map[string]int{}
	for round := range rounds {
		keys := c.fill(round%3, fmt.Sprint("round", round), 300)
		name := fmt.Sprintf("s%03d", round)
		victim := c.nodes[r.IntN(3)]
		var asked *node // whom create asks stays alive
		for _, n := range c.nodes {
			if n != victim {
				asked = n
			}
		}
		out, err := during(2*time.Second, func(*exec.Cmd) {
			victim.kill()
			died["snapshot"]++
			time.Sleep(time.Duration(r.Int64N(int64(2 * time.Second))))
			if err := victim.start(); err != nil {
				t.Fatal(err)
			}
		}, "backup", "create", "--url", url, "--name", name, "--admin", asked.admin(), "--wait", "3m")
		if err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, out)
		}
		if err := victim.awaitReady(slow); err != nil {
			t.Fatal(err)
		}
		c.mustKai("backup", "verify", "--read-data", "--url", url)

		restore := []string{"backup", "restore", "--url", url, "--admin", into.nodes[0].admin(), "--overwrite"}
		_, err = during(time.Second, func(cmd *exec.Cmd) {
			died["restore"]++
			if round%2 == 0 {
				_ = cmd.Process.Kill()
				return
			}
			into.nodes[0].kill()
		}, restore...)
		if err != nil {
			failed["restore"]++
		}
		into.again()
		into.mustKai(restore...)
		into.checkRecords(count)
		into.holds(keys)

		prune := []string{"backup", "prune", "--url", url, "--keep", "1", "--grace", "1s"}
		if _, err = during(100*time.Millisecond, func(cmd *exec.Cmd) { died["prune"]++; _ = cmd.Process.Kill() }, prune...); err != nil {
			failed["prune"]++
		}
		into.mustKai(prune...)
		c.mustKai("backup", "verify", name, "--read-data", "--url", url)
	}
	t.Logf("killed %v, of which commands ended by it %v", died, failed)
	c.checkRecords(count)
}

// TestBucketOutage takes the bucket away for a while: clients notice nothing, operators see it everywhere, and afterwards snapshots go on.
func TestBucketOutage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bucket")
	url := "file://" + dir
	c := start(t, 3, "KAI_PARTITIONS=64", "KAI_BACKUP_URL="+url, "KAI_BACKUP_INTERVAL=0")
	c.loadRecords(2000)
	c.mustKai("backup", "create", "--url", url, "--name", "before", "--admin", c.nodes[0].admin())
	away := dir + "-away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // so that it cannot be made anew
		t.Fatal(err)
	}
	l := c.load(seed(t), c.nodes...)
	eventually(t, time.Minute, "all nodes tell of the outage", func() error {
		for _, n := range c.nodes {
			if failures, err := n.metric("kai_backup_failures_total"); err != nil || failures < 2 {
				return fmt.Errorf("node %s: %d failures, %v", n.name, failures, err)
			}
			if out, err := c.kai("status", "--admin", n.admin()); err != nil || !strings.Contains(out, "not a directory") {
				return fmt.Errorf("node %s: status does not tell: %v", n.name, err)
			}
		}
		return nil
	})
	l.stop()
	for fate, n := range l.h.fates {
		if fate != int(definite) && n > 0 {
			t.Errorf("%d operations of fate %d during the outage", n, fate)
		}
	}
	if err := errors.Join(os.Remove(dir), os.Rename(away, dir)); err != nil {
		t.Fatal(err)
	}
	// One that was begun with a key which no node has does not keep the next waiting.
	t.Setenv("KAI_BACKUP_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if out, err := c.kai("backup", "create", "--url", url, "--name", "a-wrong-key", "--admin", c.nodes[0].admin(), "--wait", "1s"); err == nil || !strings.Contains(out, "KAI_BACKUP_KEY") {
		t.Errorf("%v: %s", err, out)
	}
	t.Setenv("KAI_BACKUP_KEY", "")
	c.mustKai("backup", "create", "--url", url, "--name", "after", "--admin", c.nodes[1].admin(), "--wait", "1m")
	c.mustKai("backup", "verify", "after", "--read-data", "--url", url)
	eventually(t, time.Minute, "no node tells of an outage any more", func() error {
		for _, n := range c.nodes {
			if out, err := c.kai("status", "--admin", n.admin()); err != nil || strings.Contains(out, "not a directory") || !strings.Contains(out, "a-wrong-key") {
				return fmt.Errorf("node %s: %v", n.name, err)
			}
		}
		return nil
	})
	l.verify(t, c)
}

// TestStopsWithoutItsBucket: a bucket that takes connections and never answers keeps no node from stopping.
func TestStopsWithoutItsBucket(t *testing.T) {
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	c := start(t, 3, "KAI_PARTITIONS=64")
	n := c.nodes[1]
	n.kill()
	if err := n.start("KAI_BACKUP_URL=s3://b?region=xx-test-1&use_path_style=true&endpoint=http://" + hole.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if err := n.awaitReady(slow); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped after %.1f s", time.Since(began).Seconds())
}
