package node

import (
	"context"
	"time"

	"kai/discovery"
)

const (
	// stopsWithin is what a node needs at most to stop once it has drained.
	stopsWithin = 5 * time.Second
	// departWait bounds how long a node that has stopped tells its cloud so.
	departWait = 30 * time.Second
)

// departures tells when the cloud gives notice that it ends this machine, until ctx ends.
func (n *node) departures(ctx context.Context) <-chan *discovery.Departure {
	told := make(chan *discovery.Departure, 1)
	go func() {
		if d := discovery.AwaitDeparture(ctx, n.cfg.Discovery, n.cloudFailed); d != nil {
			by := "it does not say"
			if !d.By.IsZero() {
				by = d.By.UTC().Format(time.RFC3339)
			}
			n.log.Warn("the cloud is to end this machine", "why", d.Why, "by", by)
			told <- d
		}
	}()
	return told
}

func (n *node) cloudFailed(err error) {
	n.log.Warn("the cloud does not answer as it should", "error", err)
}

// depart tells the cloud that this node has stopped, if that waits for it.
func (n *node) depart(d *discovery.Departure) {
	if d == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), departWait)
	defer cancel()
	if err := d.Complete(ctx); err != nil {
		n.log.Warn("the cloud does not know that this node has stopped", "error", err)
	}
}
