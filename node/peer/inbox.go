package peer

import (
	"io"

	"kai/node/message"
)

const (
	readBuffer = 32 << 10
	// calmReads is after how many reads that did not need it a large buffer is given back.
	calmReads = 256
)

// inbox reads what is there and cuts it into frames. One goroutine uses it.
type inbox struct {
	src      io.Reader
	buf      []byte
	r, w     int // buf[r:w] is read and not yet taken
	maxFrame int
	calm     int
	count    *counters
}

// fill reads once. The frames handed out before are gone then.
func (in *inbox) fill() error {
	in.makeRoom()
	n, err := in.src.Read(in.buf[in.w:])
	in.w += n
	in.count.reads.Add(1)
	in.count.bytesIn.Add(uint64(n))
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

func (in *inbox) makeRoom() {
	need, _ := message.FrameSize(in.buf[in.r:in.w], in.maxFrame)
	need = max(need, readBuffer)
	if cap(in.buf) > readBuffer && need == readBuffer {
		in.calm++
	} else {
		in.calm = 0
	}
	switch {
	case cap(in.buf) < need || in.calm > calmReads && in.w-in.r <= readBuffer/2:
		b := make([]byte, need)
		in.w = copy(b, in.buf[in.r:in.w])
		in.buf, in.r, in.calm = b, 0, 0
	case in.r > 0:
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
}

// next returns the next whole frame, unverified, or nil when the rest of it was not read yet.
func (in *inbox) next() ([]byte, error) {
	n, err := message.FrameSize(in.buf[in.r:in.w], in.maxFrame)
	if err != nil || n == 0 || n > in.w-in.r {
		return nil, err
	}
	f := in.buf[in.r : in.r+n]
	in.r += n
	return f, nil
}
