package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/gcsblob"
	_ "gocloud.dev/blob/memblob"
	_ "gocloud.dev/blob/s3blob"
	"gocloud.dev/gcerrors"

	"kai/backup/buckettest"
)

// everyBucket runs f with an empty bucket of each kind.
func everyBucket(t *testing.T, f func(t *testing.T, b *Bucket)) {
	for name, url := range map[string]func(t *testing.T) string{
		"mem":    func(*testing.T) string { return "mem://" },
		"file":   func(t *testing.T) string { return "file://" + t.TempDir() },
		"s3":     func(t *testing.T) string { return buckettest.S3(t) },
		"prefix": func(t *testing.T) string { return buckettest.S3(t) + "&prefix=some/where/" },
		"gcs":    func(t *testing.T) string { return buckettest.GCS(t) },
		"fault":  nil,
	} {
		t.Run(name, func(t *testing.T) {
			if url == nil {
				_, b := newFaultBucket(1)
				f(t, b)
				return
			}
			u := url(t)
			var b *blob.Bucket
			var err error
			if dir, ok := strings.CutPrefix(u, "file://"); ok {
				b, err = OpenDir(dir, false)
			} else {
				b, err = blob.OpenBucket(t.Context(), u)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			f(t, &Bucket{Bucket: b})
		})
	}
}

// TestContract is what snapshots need of any bucket.
func TestContract(t *testing.T) {
	everyBucket(t, func(t *testing.T, b *Bucket) {
		ctx := t.Context()
		code := func(what string, err error, want gcerrors.ErrorCode) {
			t.Helper()
			if gcerrors.Code(err) != want {
				t.Errorf("%s: %v, code %v; want %v", what, err, gcerrors.Code(err), want)
			}
		}
		// What is not there is NotFound, whatever is asked.
		_, err := get(ctx, b, "none")
		code("get", err, gcerrors.NotFound)
		_, err = getRange(ctx, b, "none", 1, 1)
		code("range", err, gcerrors.NotFound)
		_, err = b.Attributes(ctx, "none")
		code("attributes", err, gcerrors.NotFound)
		if err := drop(ctx, b, "none"); err != nil {
			t.Errorf("drop: %v", err)
		}
		// Of many who write what must not be there, one does.
		for round := range 5 {
			key := fmt.Sprint("race/", round)
			errs := make([]error, 16)
			var wait sync.WaitGroup
			for i := range errs {
				wait.Go(func() { errs[i] = put(ctx, b, key, fmt.Appendf(nil, "writer %d", i), true) })
			}
			wait.Wait()
			winner := -1
			for i, err := range errs {
				if err == nil {
					if winner >= 0 {
						t.Errorf("%d and %d both wrote", winner, i)
					}
					winner = i
				} else {
					code("race", err, gcerrors.FailedPrecondition)
				}
			}
			if content, err := get(ctx, b, key); err != nil || winner < 0 || string(content) != fmt.Sprintf("writer %d", winner) {
				t.Errorf("%d won, and %q is there, %v", winner, content, err)
			}
			// Told again that it has written, who has.
			if err := put(ctx, b, key, fmt.Appendf(nil, "writer %d", winner), true); err != nil {
				t.Error(err)
			}
		}
		// What is written is there at once, and its size; written again, the newer; deleted, nothing.
		for _, size := range []int{0, 1, 300_000, minBuffer, 20 << 20} {
			key := fmt.Sprint("sizes/", size)
			content := bytes.Repeat([]byte("0123456789abcdef#"), size/17+1)[:size]
			for _, c := range [][]byte{[]byte("before"), content} {
				if err := put(ctx, b, key, c, false); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := get(ctx, b, key); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes of %d, %v", len(got), size, err)
			}
			if a, err := b.Attributes(ctx, key); err != nil || a.Size != int64(size) {
				t.Errorf("%+v, %v", a, err)
			}
			if size > 100 {
				if got, err := getRange(ctx, b, key, int64(size-50), 50); err != nil || !bytes.Equal(got, content[size-50:]) {
					t.Errorf("%q, %v", got, err)
				}
			}
			if err := drop(ctx, b, key); err != nil {
				t.Error(err)
			}
			_, err = get(ctx, b, key)
			code("deleted", err, gcerrors.NotFound)
		}
		// More names than a page, in order; and what lies in "directories".
		const many = 1100
		var wait sync.WaitGroup
		for w := range 8 {
			wait.Go(func() {
				for i := w; i < many; i += 8 {
					if err := put(ctx, b, fmt.Sprintf("snapshots/s%04d/BEGIN", i), []byte("x"), true); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
		var dirs, keys []string
		began := time.Now()
		if err := list(ctx, b, snapshotsDir, true, func(o *blob.ListObject) error {
			if !o.IsDir {
				t.Errorf("%s is no directory", o.Key)
			}
			dirs = append(dirs, snapshotOf(o.Key))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := list(ctx, b, snapshotsDir, false, func(o *blob.ListObject) error {
			keys = append(keys, o.Key)
			if age := began.Sub(o.ModTime); o.Size != 1 || age < -time.Minute || age > 10*time.Minute {
				t.Errorf("%s: %d bytes, %v old", o.Key, o.Size, age)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(dirs) != many || len(keys) != many || dirs[many-1] != fmt.Sprintf("s%04d", many-1) || keys[7] != beginKey("s0007") {
			t.Errorf("%d directories, %d objects", len(dirs), len(keys))
		}
	})
}

// Damage is named and left out, old snapshots go, and what is needed stays, in every kind of bucket.
func TestDamageAndPrune(t *testing.T) {
	everyBucket(t, func(t *testing.T, b *Bucket) {
		ctx := t.Context()
		h := newHeld(500, 200)
		take(t, b, "one", h)
		for i := range 400 {
			h.set(fmt.Sprint("key", i), "changed")
		}
		two := take(t, b, "two", h)
		o := PruneOptions{Keep: 1, Grace: time.Nanosecond}
		for range 3 {
			if _, err := Prune(ctx, b, o); err != nil {
				t.Fatal(err)
			}
		}
		if all, err := List(ctx, b); err != nil || len(all) != 1 || all[0].Snapshot != "two" {
			t.Fatalf("%+v, %v", all, err)
		}
		named := map[string]bool{}
		for _, e := range two.Entries {
			for _, p := range e.Packs {
				named[packKey(p.ID)] = true
			}
		}
		for it := b.List(&blob.ListOptions{Prefix: packsDir}); ; {
			obj, err := it.Next(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if !named[obj.Key] {
				t.Errorf("%s is left", obj.Key)
			}
			delete(named, obj.Key)
		}
		if len(named) > 0 {
			t.Errorf("%v are gone", named)
		}
		verify(t, b, two.Manifest)
		same(t, restored(t, b, two.Manifest), h.clone())

		victim := packKey(two.Entries[3].Table.Pack)
		content, err := get(ctx, b, victim)
		if err != nil {
			t.Fatal(err)
		}
		flipped := bytes.Clone(content)
		flipped[two.Entries[3].Table.Offset+5] ^= 1
		for what, damage := range map[string]func() error{
			"flipped":   func() error { return put(ctx, b, victim, flipped, false) },
			"truncated": func() error { return put(ctx, b, victim, content[:two.Entries[3].Table.Offset], false) },
			"deleted":   func() error { return drop(ctx, b, victim) },
		} {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			faults, err := Verify(ctx, b, two.Manifest, true, nil)
			found := false
			for _, f := range faults {
				found = found || f.Partition == 3 && strings.Contains(f.String(), path.Base(victim))
			}
			if err != nil || !found {
				t.Errorf("%s: %v, %v", what, faults, err)
			}
		}
	})
}
