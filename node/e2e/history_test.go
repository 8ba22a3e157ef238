//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// history is what clients asked and heard. Its methods may be called from many goroutines.
type history struct {
	base time.Time

	mu      sync.Mutex
	ops     []porcupine.Operation
	fates   [senseless + 1]int
	clients int
	broken  []string // why commands got no reply: the connection broke, or patience ended
	bugs    []string // senseless replies
	faults  []fault
}

// fault is something the nemesis did, for people who read a failure.
type fault struct {
	from, to time.Duration
	what     string
}

func newHistory() *history { return &history{base: time.Now()} }

func (h *history) now() int64 { return int64(time.Since(h.base)) }

// identity numbers a client. A client that does not know what became of its command goes on as
// another, because a client of a history does one thing after the other.
func (h *history) identity() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients++
	return h.clients - 1
}

// count is how many replies of that fate there are by now.
func (h *history) count(f fate) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fates[f]
}

// add records an operation that was called at call and has just returned.
func (h *history) add(client int, q command, r reply, call int64) {
	op := porcupine.Operation{ClientId: client, Input: q, Output: r, Call: call, Return: h.now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fates[r.fate]++
	if r.fate == unknown && !strings.HasPrefix(r.why, "SERVER_ERROR") {
		h.broken = append(h.broken, r.why)
	}
	switch {
	case r.fate == senseless:
		h.bugs = append(h.bugs, fmt.Sprintf("%q was answered %q", strings.TrimSpace(q.wire()), r.why))
	case r.fate == notApplied: // it never was
	case r.fate == unknown && (q.verb == "get" || q.verb == "gets"): // it changed nothing and saw nothing
	default:
		h.ops = append(h.ops, op)
	}
}

// fault records what the nemesis did from then till now.
func (h *history) fault(from int64, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, fault{time.Duration(from), time.Duration(h.now()), fmt.Sprintf(format, args...)})
}

// byKey splits the operations; those of unknown fate return at the end of time.
func (h *history) byKey() map[string][]porcupine.Operation {
	end := h.now() + 1
	keys := map[string][]porcupine.Operation{}
	for _, op := range h.ops {
		if op.Output.(reply).fate == unknown {
			op.Return = end
		}
		k := op.Input.(command).key
		keys[k] = append(keys[k], op)
	}
	return keys
}

// checkLimit bounds the search for an order of one key's operations.
const checkLimit = 2 * time.Minute

// illegal returns why the history is not one of memcache servers, or "". ops holds the operations
// of the first key found guilty.
func (h *history) illegal() (why string, ops []porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.bugs) > 0 {
		return fmt.Sprintf("%d senseless replies, such as: %s", len(h.bugs), h.bugs[0]), nil
	}
	keys := h.byKey()
	names := make([]string, 0, len(keys))
	for k := range keys {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		if why := tokensClash(keys[k]); why != "" {
			return fmt.Sprintf("key %s: %s", k, why), keys[k]
		}
		switch porcupine.CheckOperationsTimeout(memcache(), keys[k], checkLimit) {
		case porcupine.Illegal:
			return fmt.Sprintf("key %s: its %d operations fit no order", k, len(keys[k])), keys[k]
		case porcupine.Unknown:
			return fmt.Sprintf("key %s: no order of its %d operations was found within %v", k, len(keys[k]), checkLimit), keys[k]
		}
	}
	return "", nil
}

// tokensClash finds a cas token that named two different values of one key. The model cannot: it
// forgets the tokens of former values.
func tokensClash(ops []porcupine.Operation) string {
	seen := map[uint64]string{}
	for _, op := range ops {
		q, r := op.Input.(command), op.Output.(reply)
		if q.verb != "gets" || r.word != "VALUE" {
			continue
		}
		if v, ok := seen[r.token]; ok && v != r.value {
			return fmt.Sprintf("cas token %d named both %q and %q", r.token, v, r.value)
		}
		seen[r.token] = r.value
	}
	return ""
}

// verify fails the test when the history is illegal, and leaves a picture of it.
func (h *history) verify(t *testing.T) {
	t.Helper()
	begun := time.Now()
	why, ops := h.illegal()
	t.Logf("%d operations definite, %d not applied, %d unknown, %d faults; checked in %.1f s",
		h.fates[definite], h.fates[notApplied], h.fates[unknown], len(h.faults), time.Since(begun).Seconds())
	if why == "" {
		return
	}
	t.Error("NOT LINEARIZABLE:", why)
	for _, f := range h.faults {
		t.Logf("%8.3f s – %8.3f s  %s", f.from.Seconds(), f.to.Seconds(), f.what)
	}
	if ops != nil {
		t.Log("picture:", h.picture(ops))
	}
}

// picture draws one key's operations, and the faults, into a file that outlives the test.
func (h *history) picture(ops []porcupine.Operation) string {
	_, info := porcupine.CheckOperationsVerbose(memcache(), ops, 20*time.Second)
	var notes []porcupine.Annotation
	for _, f := range h.faults {
		notes = append(notes, porcupine.Annotation{Tag: "fault", Start: int64(f.from), End: int64(f.to), Description: f.what})
	}
	info.AddAnnotations(notes)
	path := filepath.Join(os.TempDir(), fmt.Sprintf("kai-e2e-history-%d.html", time.Now().UnixNano()))
	if err := porcupine.VisualizePath(memcache(), info, path); err != nil {
		return err.Error()
	}
	return path
}
