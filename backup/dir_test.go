package backup

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

func TestOpenDir(t *testing.T) {
	dir := t.TempDir()
	none := filepath.Join(dir, "none")
	if _, err := OpenDir(none, false); !os.IsNotExist(err) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if _, err := OpenDir(filepath.Join(none, "deep"), true); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, create := range []bool{false, true} {
		if _, err := OpenDir(file, create); err == nil {
			t.Error("a file is opened")
		}
	}
}

// Names that lead out of the directory, or to what is hidden, are refused; what a writer left goes after a day; directories do not stay empty.
func TestDirKeepsToItself(t *testing.T) {
	dir := t.TempDir()
	raw, err := OpenDir(filepath.Join(dir, "b"), true)
	if err != nil {
		t.Fatal(err)
	}
	b := &Bucket{Bucket: raw}
	defer b.Close()
	for _, key := range []string{"../out", "a/../../out", "/abs", "a//b", ".", hidden + "x", "a/" + hidden + "x"} {
		if err := put(t.Context(), b, key, []byte("x"), false); gcerrors.Code(err) != gcerrors.InvalidArgument {
			t.Errorf("%q: %v", key, err)
		}
	}
	if err := put(t.Context(), b, "packs/aa/one", []byte("x"), true); err != nil {
		t.Fatal(err)
	}
	left := func(name string, age time.Duration) string {
		path := filepath.Join(dir, "b", "packs", "aa", hidden+name)
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old, young := left("old", 25*time.Hour), left("young", time.Hour)
	if keys := names(t, b, ""); len(keys) != 1 || keys[0] != "packs/aa/one" {
		t.Errorf("listed: %v", keys)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Error("what was left a day ago is there")
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("what is being written is gone: %v", err)
	}
	if err := os.Remove(young); err != nil {
		t.Fatal(err)
	}
	if err := drop(t.Context(), b, "packs/aa/one"); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "b")); err != nil || len(entries) > 0 {
		t.Errorf("%v are left, %v", entries, err)
	}
}

func names(t *testing.T, b *Bucket, prefix string) (keys []string) {
	t.Helper()
	if err := list(t.Context(), b, prefix, false, func(o *blob.ListObject) error { keys = append(keys, o.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	return keys
}
