//go:build linux

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// largest is the largest file of the corpus, Kai's default KAI_MAX_VALUE_BYTES.
const largest = 1 << 20

// document is a file of the corpus.
type document struct {
	root, rel string // its path, in two parts
	key       string
	sum       [sha256.Size]byte // set when it was loaded
}

// corpus lists the Go source tree of the toolchain: real files of all sizes up to 1 MiB, text and
// binary, some empty.
func corpus(t *testing.T) (docs []*document) {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("SKIPPED: no Go toolchain to take a corpus from: %v", err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "src")
	if root, err = filepath.EvalSymlinks(root); err != nil {
		t.Skipf("SKIPPED: the toolchain has no source tree: %v", err)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() > largest {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		docs = append(docs, &document{root: root, rel: rel, key: keyOf(rel)})
		return nil
	})
	if err != nil || len(docs) < 1000 {
		t.Fatalf("%s: %d files: %v", root, len(docs), err)
	}
	return docs
}

// keyOf makes a memcache key of a path: at most 250 bytes, nothing unprintable.
func keyOf(path string) string {
	if len(path) <= 250 && !strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return path
	}
	sum := sha256.Sum256([]byte(path))
	return "sha256-" + hex.EncodeToString(sum[:])
}

// TestCorpus is the main job on real input: load a corpus through one node, lose another half way,
// read everything back through the third.
func TestCorpus(t *testing.T) {
	c := start(t, 3)
	docs := corpus(t)
	through, victim, witness := c.nodes[0], c.nodes[1], c.nodes[2]
	var bytes, retries atomic.Int64
	var half sync.Once
	begun := time.Now()
	each(t, docs, func(at int, d *document, cl **client) error {
		if at == len(docs)/2 {
			half.Do(victim.kill)
		}
		data, err := os.ReadFile(filepath.Join(d.root, d.rel))
		if err != nil {
			return err
		}
		d.sum = sha256.Sum256(data)
		bytes.Add(int64(len(data)))
		return store(cl, through, d.key, string(data), &retries)
	})
	loaded := time.Since(begun)
	if _, alive := victim.running(); alive {
		t.Fatal("nobody was killed")
	}
	verifyCorpus(t, docs, witness)
	t.Logf("%d files, %d bytes: loaded through node %s in %.1f s (%d writes tried again) while node %s was killed, verified through node %s in %.1f s",
		len(docs), bytes.Load(), through.name, loaded.Seconds(), retries.Load(), victim.name, witness.name, (time.Since(begun) - loaded).Seconds())
	t.Run("libmemcached", func(t *testing.T) { outsideClient(t, docs, through, witness) })
	c.again()
	verifyCorpus(t, docs, victim)
}

// each runs f on all documents, in order of their start, on a few connections; f makes and breaks
// its connection itself.
func each(t *testing.T, docs []*document, f func(at int, d *document, cl **client) error) {
	t.Helper()
	const connections = 4
	var next atomic.Int64
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			var cl *client
			for !t.Failed() {
				at := int(next.Add(1)) - 1
				if at >= len(docs) {
					break
				}
				if err := f(at, docs[at], &cl); err != nil {
					t.Errorf("%s: %v", docs[at].key, err)
				}
			}
			if cl != nil {
				cl.close()
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// store sets a key and tries again until it is stored, as a client does that wants its data safe:
// nobody else writes the key, so an unknown outcome may simply be written again.
func store(cl **client, n *node, key, data string, retries *atomic.Int64) error {
	r, err := persist(cl, n, command{verb: "set", key: key, value: data}, retries)
	if err == nil && r.word != "STORED" {
		err = errors.New(r.word)
	}
	return err
}

// persist repeats a command until its reply is definite.
func persist(cl **client, n *node, q command, retries *atomic.Int64) (reply, error) {
	for end := time.Now().Add(slow); ; retries.Add(1) {
		var r reply
		ok := true
		if *cl == nil {
			var err error
			if *cl, err = dial(n.client()); err != nil {
				return reply{}, err
			}
		}
		if r, ok = (*cl).do(q); !ok {
			(*cl).close()
			*cl = nil
		}
		switch {
		case r.fate == definite:
			return r, nil
		case r.fate == senseless, time.Now().After(end):
			return r, errors.New(r.why)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// verifyCorpus reads every document through one node and compares its checksum.
func verifyCorpus(t *testing.T, docs []*document, n *node) {
	t.Helper()
	var missing, different, retries atomic.Int64
	each(t, docs, func(_ int, d *document, cl **client) error {
		r, err := persist(cl, n, command{verb: "get", key: d.key}, &retries)
		switch {
		case err != nil:
			return err
		case r.word != "VALUE":
			missing.Add(1)
		case sha256.Sum256([]byte(r.value)) != d.sum:
			different.Add(1)
		}
		return nil
	})
	if missing.Load()+different.Load() > 0 {
		t.Fatalf("through node %s: of %d files %d are missing, %d different", n.name, len(docs), missing.Load(), different.Load())
	}
}

// outsideClient copies a sample of the corpus once more with somebody else's client: written by
// memccp through one node, read by memccat through another.
func outsideClient(t *testing.T, docs []*document, to, from *node) {
	memccp, memccat := needsTool(t, "memccp", "libmemcached-tools"), needsTool(t, "memccat", "libmemcached-tools")
	var sample []*document
	args := []string{"--servers=" + to.client(), "--relative"}
	cl, err := dial(to.client())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.close()
	for at := 0; at < len(docs); at += len(docs)/50 + 1 {
		d := docs[at]
		if d.key != d.rel { // memccp has its own idea of a long path's key
			continue
		}
		if r, _ := cl.do(command{verb: "delete", key: d.key}); r.word != "DELETED" {
			t.Fatalf("delete %s: %s%s", d.key, r.word, r.why)
		}
		sample, args = append(sample, d), append(args, d.rel)
	}
	copying := exec.Command(memccp, args...)
	copying.Dir = sample[0].root
	if out, err := copying.CombinedOutput(); err != nil {
		t.Fatalf("memccp: %v\n%s", err, out)
	}
	file := filepath.Join(t.TempDir(), "file")
	for _, d := range sample {
		if out, err := exec.Command(memccat, "--servers="+from.client(), "--file="+file, d.key).CombinedOutput(); err != nil {
			t.Fatalf("memccat %s: %v\n%s", d.key, err, out)
		}
		if data, err := os.ReadFile(file); err != nil || sha256.Sum256(data) != d.sum {
			t.Errorf("%s came back different from memccat: %v", d.key, err)
		}
	}
	t.Logf("%d files copied by memccp and read by memccat", len(sample))
}
