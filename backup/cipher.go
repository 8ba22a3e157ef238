package backup

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"gocloud.dev/blob"
	"golang.org/x/crypto/chacha20poly1305"
)

// Bucket is where snapshots lie, and how it is used. Copies share the limits.
type Bucket struct {
	*blob.Bucket
	// Key encrypts what is written, and decrypts; nil: nothing is encrypted.
	Key *Key
	// Up and Down limit what is written and read; nil: nothing does.
	Up, Down *Pace
}

// Key encrypts frames: keys and values. Who reads the bucket without it sees names, sizes and times. Who can write there can take away, and
// put back what was there before, but nothing else without being noticed.
type Key struct {
	aead cipher.AEAD
	id   string
}

// KeySize is a key's length in bytes.
const KeySize = chacha20poly1305.KeySize

// ErrKey is about a key that is missing, or is another.
var ErrKey = errors.New("backup key")

// NewKey makes a key of 32 bytes; of none it is nil.
func NewKey(raw []byte) (*Key, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	if len(raw) != KeySize {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", ErrKey, len(raw), KeySize)
	}
	aead, err := chacha20poly1305.NewX(raw)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("kai backup key id\x00"), raw...))
	return &Key{aead, hex.EncodeToString(sum[:6])}, nil
}

// ID tells keys apart, and nothing about them; "" for none.
func (k *Key) ID() string {
	if k == nil {
		return ""
	}
	return k.id
}

// sealedMagic begins an encrypted frame; no frame of zstd begins so. The nonce and what is encrypted follow.
var sealedMagic = []byte("KaX1")

// encrypt appends frame, encrypted, to dst.
func (k *Key) encrypt(dst, frame []byte) []byte {
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	_, _ = rand.Read(nonce) // it never fails
	dst = append(append(dst, sealedMagic...), nonce...)
	return k.aead.Seal(dst, nonce, frame, nil)
}

// decrypt returns what stored holds, encrypted or not.
func (k *Key) decrypt(stored []byte) ([]byte, error) {
	rest, sealed := bytes.CutPrefix(stored, sealedMagic)
	if !sealed {
		return stored, nil
	}
	if k == nil {
		return nil, fmt.Errorf("%w needed: set KAI_BACKUP_KEY", ErrKey)
	}
	if len(rest) < chacha20poly1305.NonceSizeX {
		return nil, fmt.Errorf("%w: too short", ErrDamaged)
	}
	nonce, box := rest[:chacha20poly1305.NonceSizeX], rest[chacha20poly1305.NonceSizeX:]
	frame, err := k.aead.Open(nil, nonce, box, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: not encrypted with this key", ErrDamaged)
	}
	return frame, nil
}

// fits tells whether what m names can be read with the bucket's key.
func (b *Bucket) fits(m *Manifest) error {
	if own := b.Key.ID(); m.Key != "" && m.Key != own {
		if own == "" {
			own = "none"
		}
		return fmt.Errorf("%w: snapshot %s is encrypted with key %s, and the key here is %s: set KAI_BACKUP_KEY to that key", ErrKey, m.Snapshot, m.Key, own)
	}
	return nil
}

// Pace limits bytes a second, on the average of some objects: one goes as fast as it can, and the next waits. Safe for concurrent use.
type Pace struct {
	rate int64
	mu   sync.Mutex
	next time.Time
}

// NewPace limits to rate bytes a second; 0 is no limit, and nil.
func NewPace(rate int64) *Pace {
	if rate <= 0 {
		return nil
	}
	return &Pace{rate: rate}
}

// wait returns when the next n bytes may go.
func (p *Pace) wait(ctx context.Context, n int64) error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	pause := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	p.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}
