package message

import (
	"bytes"
	"fmt"
	"testing"

	"kai/node/record"
)

func row(i, size int) (key, enc []byte) {
	key = fmt.Appendf(nil, "key%05d", i)
	return key, record.Append(nil, key, &record.Record{Kind: record.Value, Version: 1, CAS: 1, Value: bytes.Repeat([]byte{'v'}, size)})
}

func TestPage(t *testing.T) {
	page := BeginPage(nil)
	n := 0
	for ; ; n++ {
		key, enc := row(n, 1000)
		var ok bool
		if page, ok = AppendRow(page, key, enc); !ok {
			break
		}
	}
	if len(page) > pageBytes || len(page) < pageBytes-1200 {
		t.Errorf("a full page has %d bytes", len(page))
	}
	rows, more, ok := OpenPage(page)
	if !ok || !more {
		t.Fatalf("more %v, ok %v", more, ok)
	}
	for i := range n {
		wantKey, wantEnc := row(i, 1000)
		var key, enc []byte
		if key, enc, rows, ok = NextRow(rows); !ok || !bytes.Equal(key, wantKey) || !bytes.Equal(enc, wantEnc) {
			t.Fatalf("row %d: %q, %v", i, key, ok)
		}
	}
	if len(rows) != 0 {
		t.Errorf("%d bytes behind the last row", len(rows))
	}
}

func TestPageHoldsALargeRecord(t *testing.T) {
	key, enc := row(1, 2*pageBytes)
	page, ok := AppendRow(BeginPage(nil), key, enc)
	if !ok {
		t.Fatal("a page of its own is not enough")
	}
	if _, more, _ := OpenPage(page); more {
		t.Error("it says that there is more")
	}
	reply := AppendReply(nil, 1, &Reply{Status: OK, Items: page})
	if len(reply) > MaxFrame(2*pageBytes) {
		t.Errorf("a frame of %d bytes", len(reply))
	}
}

func FuzzPage(f *testing.F) {
	key, enc := row(1, 10)
	page, _ := AppendRow(BeginPage(nil), key, enc)
	f.Add(page)
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, _, ok := OpenPage(b)
		for ok && len(rows) > 0 {
			var key, enc []byte
			if key, enc, rows, ok = NextRow(rows); ok && record.Check(key, enc) != nil {
				t.Fatalf("%q: a damaged record passed", key)
			}
		}
	})
}
