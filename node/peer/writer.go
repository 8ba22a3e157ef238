package peer

import "time"

// writePiece is how much one deadline covers: a slow peer that makes progress is not cut off.
const writePiece = 256 << 10

// run is the writer: it writes, blocking, what flush could not. It returns after close.
func (o *outbox) run() {
	for {
		select {
		case <-o.done:
			return
		case <-o.wake:
			o.drain()
		}
	}
}

func (o *outbox) drain() {
	o.mu.Lock()
	o.nudged = false
	if o.closed || !o.handed && (o.busy || len(o.buf) == 0) {
		o.mu.Unlock()
		return
	}
	o.busy, o.handed = true, false
	for {
		out, from := o.restOf, o.rest
		if o.rest, o.restOf = nil, nil; out == nil {
			if len(o.buf) == 0 {
				o.leave()
				return
			}
			out = o.swap()
			from = out
		}
		o.mu.Unlock()
		err := o.block(from)
		o.mu.Lock()
		if err != nil {
			o.broke(err)
			return
		}
		o.recycle(out)
	}
}

// block writes all of p, piece by piece, each with its deadline.
func (o *outbox) block(p []byte) error {
	if o.try != nil { // spares the deadline where the kernel takes it all
		n, err := o.try.TryWrite(p)
		if o.wrote(n); err != nil || n == len(p) {
			return err
		}
		p = p[n:]
	}
	for len(p) > 0 {
		if err := o.conn.SetWriteDeadline(time.Now().Add(o.timeout)); err != nil {
			return err
		}
		n, err := o.conn.Write(p[:min(len(p), writePiece)])
		if o.wrote(n); err != nil {
			return err
		}
		p = p[n:]
	}
	// An expired deadline would fail the next write that does not block, too.
	return o.conn.SetWriteDeadline(time.Time{})
}

func (o *outbox) wrote(n int) {
	o.count.writes.Add(1)
	o.count.bytesOut.Add(uint64(n))
}
