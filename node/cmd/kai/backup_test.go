package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kai/backup"
	"kai/node"
	"kai/node/console"
	"kai/node/record"
)

func TestBackupNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	url := "file://" + dir
	for _, c := range []struct {
		args []string
		code int
		said string
	}{
		{[]string{"list"}, exitUsage, "--url"},
		{[]string{"list", "--url", "ftp://x"}, exitUsage, "ftp"},
		{[]string{"list", "--url", url + "/none"}, exitUsage, "none"},
		{[]string{"list", "--url", url}, exitOK, ""},
		{[]string{"show", "--url", url}, exitFailure, "no complete snapshot"},
		{[]string{"verify", "x", "--url", url}, exitFailure, `"x"`},
		{[]string{"prune", "--keep", "0", "--url", url}, exitUsage, "--keep"},
		{[]string{"prune", "--url", url}, exitOK, ""},
		{[]string{"create", "--url", url, "--admin", closedPort(t)}, exitNotReady, "no node answers"},
	} {
		code, _, errs := command(t, nil, nil, append([]string{"backup"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.said) {
			t.Errorf("%v: %d %q", c.args, code, errs)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory was made of a mistake")
	}
}

// What is not wanted or internal is left out; all else is sent, in requests of bounded size; the first refusal ends it.
func TestSender(t *testing.T) {
	var requests, refuseAt atomic.Int64
	refuseAt.Store(-1)
	l := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/api/restore" || r.Header.Get(console.ActionHeader) == "" || len(body) > 2*sendBytes {
			t.Errorf("%s, %d bytes, %v", r.URL, len(body), err)
		}
		if n == refuseAt.Load() {
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"error":"no room"}`)
			return
		}
		done := console.Restoration{}
		for len(body) > 0 {
			key, enc := int(binary.LittleEndian.Uint16(body)), int(binary.LittleEndian.Uint32(body[2:]))
			var rec record.Record
			if err := record.Decode(body[6:6+key], body[6+key:6+key+enc], &rec); err != nil {
				t.Error(err)
			}
			body = body[6+key+enc:]
			done.Restored++
		}
		_ = json.NewEncoder(w).Encode(done)
	}))
	defer l.Close()
	item := func(key string, size int) backup.Item {
		r := record.Record{Kind: record.Value, Value: make([]byte, size), CAS: 1, Version: 1, Ballot: record.Ballot{Epoch: 1, Stamp: 1}}
		return backup.Item{Key: []byte(key), Value: record.Append(nil, []byte(key), &r)}
	}
	items := []backup.Item{item("other", 1), item(strings.Repeat("key", 100), 1)}
	const small, large = 3000, 20
	for i := range small {
		items = append(items, item(fmt.Sprint("key", i), 10))
	}
	for i := range large {
		items = append(items, item(fmt.Sprint("key-large", i), sendBytes/2))
	}
	send := func() (*sender, error) {
		s := newSender(console.Client{Addr: l.Listener.Addr().String()}, func(key []byte) bool { return strings.HasPrefix(string(key), "key") })
		err := s.take(t.Context(), items)
		if last := s.close(t.Context()); err == nil {
			err = last
		}
		return s, err
	}
	if s, err := send(); err != nil || s.done.Restored != small+large || requests.Load() < large/2 {
		t.Errorf("%+v in %d requests, %v", s.done, requests.Load(), err)
	}
	refuseAt.Store(requests.Load() + 2)
	if _, err := send(); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("refused: %v", err)
	}
}

// few is a backup.Source of one record in each partition, of which two are more than one request.
type few struct{}

func (few) Sums(_ context.Context, p int) ([]uint64, error) {
	sums := make([]uint64, node.BackupLeaves)
	sums[p] = uint64(p + 1)
	return sums, nil
}

func (few) Records(_ context.Context, p int, leaves []int, yield func(backup.Record) error, _ func() error) error {
	key := []byte(fmt.Sprint("key", p))
	r := record.Record{Kind: record.Value, Value: make([]byte, sendBytes*6/10), CAS: 1, Version: 1, Ballot: record.Ballot{Epoch: 1, Stamp: 1}}
	return yield(backup.Record{Key: key, Value: record.Append(nil, key, &r), Leaf: p, Sum: uint64(p + 1)})
}

// takeSnapshot puts a snapshot of 4 records into a directory.
func takeSnapshot(t *testing.T, dir, cluster, name string) {
	t.Helper()
	b, err := node.OpenBucket(t.Context(), node.Config{}, "file://"+dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s := backup.New(backup.Options{Bucket: b, Cluster: cluster, Node: "n1", Partitions: 4, Leaves: node.BackupLeaves, Source: few{}, Patience: time.Hour, Look: time.Second, Logger: slog.New(slog.DiscardHandler)})
	if _, err := s.Take(t.Context(), name, func(int) time.Duration { return 0 }); err != nil {
		t.Fatal(err)
	}
}

func TestBackupPrintsJSON(t *testing.T) {
	dir := t.TempDir()
	url := "file://" + dir
	takeSnapshot(t, dir, "c", "one")
	takeSnapshot(t, dir, "c", "two")
	ask := func(want int, into any, args ...string) {
		t.Helper()
		code, out, errs := command(t, nil, nil, append(append([]string{"backup"}, args...), "--url", url, "-o", "json")...)
		if code != want {
			t.Errorf("%v: exit code %d, %s", args, code, errs)
		}
		if err := json.Unmarshal([]byte(out), into); err != nil {
			t.Errorf("%v: %v in %q", args, err, out)
		}
	}
	var listed []shownSnapshot
	if ask(exitOK, &listed, "list"); len(listed) != 2 || listed[1].Snapshot != "two" || listed[1].Records != 4 || listed[1].Parent != "one" {
		t.Errorf("%+v", listed)
	}
	var verified shownVerify
	if ask(exitOK, &verified, "verify", "one", "--read-data"); verified.Records != 4 || !verified.ReadData || verified.Faults == nil || len(verified.Faults) > 0 {
		t.Errorf("%+v", verified)
	}
	var pruned shownPrune
	if ask(exitOK, &pruned, "prune", "--keep", "1", "--dry-run"); len(pruned.Snapshots) != 1 || pruned.Snapshots[0] != "one" || !pruned.DryRun {
		t.Errorf("%+v", pruned)
	}
	// Of two clusters' snapshots none is the newest.
	takeSnapshot(t, dir, "other", "three")
	if code, _, errs := command(t, nil, nil, "backup", "show", "--url", url); code != exitUsage || !strings.Contains(errs, "three of cluster other") || !strings.Contains(errs, "two of cluster c") {
		t.Errorf("two clusters: %d %s", code, errs)
	}
	if ask(exitOK, &pruned, "prune", "--keep", "1", "--forget", "c"); len(pruned.Snapshots) != 2 || pruned.DryRun {
		t.Errorf("%+v", pruned)
	}
	packs, err := filepath.Glob(filepath.Join(dir, "packs", "*", "*.kp"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	if ask(exitFailure, &verified, "verify"); len(verified.Faults) == 0 || !strings.HasSuffix(verified.Faults[0].Object, ".kp") || verified.Faults[0].Error == "" {
		t.Errorf("%+v", verified.Faults)
	}
}

// A restore waits for what it has sent: the node may take its time.
func TestRestoreWaits(t *testing.T) {
	dir := t.TempDir()
	takeSnapshot(t, dir, "c", "one")
	var restored atomic.Int64
	l := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/restore" {
			_ = json.NewEncoder(w).Encode(console.Status{})
			return
		}
		body, err := io.ReadAll(r.Body)
		select {
		case <-r.Context().Done():
			err = r.Context().Err()
		case <-time.After(300 * time.Millisecond):
		}
		if err != nil {
			t.Error(err)
		}
		restored.Add(int64(len(body)))
		_ = json.NewEncoder(w).Encode(console.Restoration{Restored: 4})
	}))
	defer l.Close()
	code, out, errs := command(t, nil, nil, "backup", "restore", "--url", "file://"+dir, "--admin", l.Listener.Addr().String())
	if code != exitOK || !strings.Contains(out, "8 records brought back") || restored.Load() == 0 {
		t.Errorf("%d %s %s", code, out, errs)
	}
}
