package main

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"kai/backup"
	"kai/node/console"
	"kai/node/record"
)

const (
	// senders is how many requests are under way, sendRecords and sendBytes when one is full.
	senders     = 16
	sendRecords = 1024
	sendBytes   = 1 << 20
)

// sender sends records to a node that brings them back.
type sender struct {
	client    console.Client
	want      func(key []byte) bool
	overwrite bool
	done      console.Restoration // after close
	body      []byte
	count     int
	turns     chan struct{}
	wait      sync.WaitGroup
	mu        sync.Mutex
	err       error // the first
}

func newSender(client console.Client, want func(key []byte) bool) *sender {
	client.HTTP = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}}
	return &sender{client: client, want: want, turns: make(chan struct{}, senders)}
}

// take sends those records that are wanted, some now, the others later. The error may be of earlier ones.
func (s *sender) take(ctx context.Context, items []backup.Item) error {
	for _, it := range items {
		if record.Internal(it.Key) || !s.want(it.Key) {
			continue
		}
		s.body = console.AppendRecord(s.body, it.Key, it.Value)
		if s.count++; s.count >= sendRecords || len(s.body) >= sendBytes {
			if err := s.send(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sender) send(ctx context.Context) error {
	select {
	case s.turns <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	if err != nil {
		<-s.turns
		return err
	}
	body := s.body
	s.body, s.count = nil, 0
	s.wait.Go(func() {
		defer func() { <-s.turns }()
		done, err := s.client.Restore(ctx, body, s.overwrite)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.done.Add(done)
		if s.err == nil {
			s.err = err
		}
	})
	return nil
}

// close sends the rest, and waits until everything is decided.
func (s *sender) close(ctx context.Context) (err error) {
	if s.count > 0 {
		err = s.send(ctx)
	}
	s.wait.Wait()
	s.client.HTTP.CloseIdleConnections()
	if s.err != nil {
		return s.err
	}
	return errors.Join(err, ctx.Err())
}
