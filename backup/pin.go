package backup

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"gocloud.dev/blob"
)

const (
	pinsDir = "pins/"
	// pinLife is how long a pin holds that nobody renews.
	pinLife = time.Hour
)

// pin is the content of pins/<name>: somebody reads a snapshot.
type pin struct {
	Format   int       `json:"format"`
	Snapshot string    `json:"snapshot"`
	Cut      time.Time `json:"cut"`
	Expires  time.Time `json:"expires"`
}

// Pin keeps m from being pruned, and what was deleted since its cut from being forgotten by nodes that look at
// Pinned, until release is called or, should this process die, for an hour. Look again only then whether m is still the newest snapshot, if
// that matters. Renewing is tried in the background; release ends it.
func Pin(ctx context.Context, b *Bucket, m *Manifest, who string) (release func(), err error) {
	key := pinsDir + who + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	write := func(ctx context.Context) error {
		content, err := seal(pin{Format: Format, Snapshot: m.Snapshot, Cut: m.Cut, Expires: time.Now().UTC().Add(pinLife)})
		if err != nil {
			return err
		}
		return put(ctx, b, key, content, false)
	}
	if err := write(ctx); err != nil {
		return nil, err
	}
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-renewing.Done():
				return
			case <-time.After(pinLife / 6):
				_ = write(renewing) // it is tried again long before the pin expires
			}
		}
	}()
	return func() {
		stop()
		<-ended
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = drop(ctx, b, key) // else it expires
	}, nil
}

// pinned calls f with each pin that holds. It removes those that have expired for long.
func pinned(ctx context.Context, b *Bucket, f func(pin)) error {
	now := time.Now()
	return list(ctx, b, pinsDir, false, func(o *blob.ListObject) error {
		var p pin
		err := document(ctx, b, o.Key, &p)
		switch {
		case missing(err): // released meanwhile
			return nil
		case errors.Is(err, ErrDamaged): // of which snapshot? it holds as long as it would
			if now.Sub(o.ModTime) > pinLife {
				return nil
			}
			return fmt.Errorf("%w: remove it yourself if nobody restores", err)
		case err != nil:
			return err
		case now.After(p.Expires.Add(pinLife)):
			return drop(ctx, b, o.Key)
		case now.Before(p.Expires):
			f(p)
		}
		return nil
	})
}

// Pinned returns the oldest cut of snapshots that are pinned; the zero time if there is none.
func Pinned(ctx context.Context, b *Bucket) (cut time.Time, err error) {
	err = pinned(ctx, b, func(p pin) {
		if cut.IsZero() || p.Cut.Before(cut) {
			cut = p.Cut
		}
	})
	return cut, err
}
