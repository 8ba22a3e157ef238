package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// vault is a Restorer that remembers.
type vault struct {
	fake
	got       map[string]string
	overwrite bool
}

func (*vault) MaxRecord() int { return 1000 }

func (v *vault) Restore(_ context.Context, overwrite bool, next func() (key, enc []byte, err error)) (done Restoration, err error) {
	v.overwrite = overwrite
	for {
		key, enc, err := next()
		if errors.Is(err, io.EOF) {
			return done, nil
		}
		if err != nil {
			return done, err
		}
		v.got[string(key)] = string(enc)
		done.Restored++
	}
}

func TestRestore(t *testing.T) {
	v := &vault{got: map[string]string{}}
	addr, stop := serve(t, v)
	defer func() { _ = stop() }()
	c := Client{Addr: addr}
	body := AppendRecord(AppendRecord(nil, []byte("a"), []byte("one")), []byte("b"), nil)
	if done, err := c.Restore(t.Context(), body, true); err != nil || done.Restored != 2 || v.got["a"] != "one" || len(v.got) != 2 || !v.overwrite {
		t.Errorf("%+v, %v, %v", done, err, v)
	}
	if _, err := c.Restore(t.Context(), nil, false); err != nil || v.overwrite {
		t.Errorf("nothing: %v", err)
	}
	for n := 1; n < len(body); n++ {
		if _, err := c.Restore(t.Context(), body[:n], false); n != 10 && !errors.Is(err, ErrRefused) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	if _, err := c.Restore(t.Context(), AppendRecord(nil, []byte("k"), make([]byte, 1001)), false); err == nil || !strings.Contains(err.Error(), "KAI_MAX_VALUE_BYTES") {
		t.Errorf("too large: %v", err)
	}
	w := httptest.NewRecorder()
	Handler(v).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/restore", bytes.NewReader(body)))
	if w.Code != http.StatusForbidden {
		t.Errorf("without the header: %d", w.Code)
	}
}
