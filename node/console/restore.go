package console

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Restorer is a Source that takes records of a snapshot back: then the console answers
//
//	POST /api/restore  Restoration; overwrite=true takes them over newer ones, too; the body has records, each as its key's length (2 bytes, little endian), its encoding's (4), key, encoding
//
// The POST is guarded as those of an Operator are.
type Restorer interface {
	// MaxRecord is the longest encoding of a record that it takes, in bytes.
	MaxRecord() int
	// Restore takes what next returns, until its error, which is io.EOF at the end; the slices are its own. What is there and newer stays, unless it
	// is to be overwritten. It blocks until each is decided. After an error some may have been taken: all may be brought again.
	Restore(ctx context.Context, overwrite bool, next func() (key, enc []byte, err error)) (Restoration, error)
}

// Restoration says what became of records of a snapshot.
type Restoration struct {
	// Restored were written; Newer were not, because what is there is newer, or came of them; Dead were not, because they are deleted or expired, and
	// nothing was there.
	Restored int64 `json:"restored"`
	Newer    int64 `json:"newer"`
	Dead     int64 `json:"dead"`
}

// Add adds another's counts.
func (r *Restoration) Add(other Restoration) {
	r.Restored, r.Newer, r.Dead = r.Restored+other.Restored, r.Newer+other.Newer, r.Dead+other.Dead
}

// AppendRecord appends a record as POST /api/restore takes it.
func AppendRecord(b, key, enc []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(key)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(enc)))
	return append(append(b, key...), enc...)
}

const (
	// restoring bounds the requests that are dealt with at once; others wait.
	restoring = 32
	// restoreTimeout bounds one request: some thousand records on a cluster that is in trouble.
	restoreTimeout = 2 * time.Minute
)

func restore(mux *http.ServeMux, to Restorer) {
	turns := make(chan struct{}, restoring)
	mux.HandleFunc("POST /api/restore", action(func(w http.ResponseWriter, r *http.Request) {
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
		case <-r.Context().Done():
			return
		}
		until := time.Now().Add(restoreTimeout)
		c := http.NewResponseController(w)
		_ = c.SetReadDeadline(until) // who cannot do it keeps the server's
		_ = c.SetWriteDeadline(until)
		body := bufio.NewReaderSize(r.Body, 64<<10)
		done, err := to.Restore(r.Context(), r.URL.Query().Get("overwrite") == "true", func() (key, enc []byte, err error) { return nextRecord(body, to.MaxRecord()) })
		if err != nil {
			refuse(w, http.StatusConflict, err)
			return
		}
		answer(w, http.StatusOK, done)
	}))
}

// nextRecord reads a record; io.EOF only between two.
func nextRecord(r io.Reader, limit int) (key, enc []byte, err error) {
	var h [6]byte
	if n, err := io.ReadFull(r, h[:]); n == 0 && errors.Is(err, io.EOF) {
		return nil, nil, io.EOF
	} else if err != nil {
		return nil, nil, fmt.Errorf("the request ends within a record: %w", err)
	}
	n, m := int(binary.LittleEndian.Uint16(h[:])), int(binary.LittleEndian.Uint32(h[2:]))
	if m > limit {
		return nil, nil, fmt.Errorf("a record of %d bytes, more than the %d that KAI_MAX_VALUE_BYTES of this node allows", m, limit)
	}
	b := make([]byte, n+m)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, nil, fmt.Errorf("the request ends within a record: %w", io.ErrUnexpectedEOF)
	}
	return b[:n:n], b[n:], nil
}
