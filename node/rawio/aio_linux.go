package rawio

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// WriteSync writes p at off of fd and makes it durable, and nothing else that was written; fd is open
// with O_DIRECT, so address, length and offset of p are multiples of the device's block. The kernel
// works on it beside (io_submit with RWF_DSYNC): the goroutine waits, but no thread does, and whoever
// sends or receives meanwhile looks whether it is done, so that nobody has to be woken for that. The
// error wraps errors.ErrUnsupported when the kernel or the file system does not do such writes, and is
// a syscall.Errno or io.ErrShortWrite else; after one, what is on the disk is unknown.
func WriteSync(fd uintptr, p []byte, off int64) error {
	q := theQueue()
	if q == nil || len(p) == 0 {
		return errors.ErrUnsupported
	}
	n, err := q.write(fd, p, off)
	switch {
	case err == syscall.EINVAL || err == syscall.EOPNOTSUPP || err == syscall.ENOSYS || err == syscall.EAGAIN || err == syscall.EPERM:
		return errors.Join(errors.ErrUnsupported, err)
	case err == nil && n != len(p):
		return io.ErrShortWrite
	}
	return err
}

// A queue is a context of the kernel's asynchronous I/O: io_setup(2), linux/aio_abi.h.
type queue struct {
	ring   *ring
	events []event
	wake   *os.File // eventfd, for when nobody comes by
	wakeFd uint32
	free   chan uint32
	slots  [queueLen]slot
	reaper sync.Mutex // of the ring's head
}

// queueLen is the most writes on their way; others wait their turn.
const queueLen = 32

type slot struct {
	cb   iocb
	p    []byte // to keep it where it is until done
	done chan int64
}

// iocb is struct iocb of a little-endian machine.
type iocb struct {
	data           uint64
	_, rwFlags     uint32
	opcode         uint16
	_              int16
	fd             uint32
	buf, len       uint64
	off            int64
	_              uint64
	flags, eventFd uint32
}

const (
	opWrite  = 1 // IOCB_CMD_PWRITE
	flagWake = 1 // IOCB_FLAG_RESFD
	dsync    = 2 // RWF_DSYNC

	ringMagic = 0xa10a10a1
)

// ring is struct aio_ring, where the kernel puts what is done and from where anybody may take it.
type ring struct {
	_, size, head, tail, magic, _, incompatible, header uint32
}

// event is struct io_event.
type event struct {
	slot, _   uint64
	res, res2 int64
}

// writing is how many writes are on their way in the queue of this process: reap has a reason to look.
var writing atomic.Int32

var theQueue = sync.OnceValue(newQueue)

// newQueue returns nil where there is none to be had.
func newQueue() *queue {
	if x := uint16(1); *(*byte)(unsafe.Pointer(&x)) != 1 {
		return nil // another order of iocb's fields
	}
	q := &queue{free: make(chan uint32, queueLen)}
	if _, _, errno := syscall.Syscall(syscall.SYS_IO_SETUP, queueLen, uintptr(unsafe.Pointer(&q.ring)), 0); errno != 0 {
		return nil
	}
	fd, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 || q.ring.magic != ringMagic || q.ring.incompatible != 0 {
		return nil
	}
	q.events = unsafe.Slice((*event)(unsafe.Add(unsafe.Pointer(q.ring), q.ring.header)), q.ring.size)
	q.wake, q.wakeFd = os.NewFile(fd, "eventfd"), uint32(fd)
	poller, err := q.wake.SyscallConn()
	if err != nil {
		return nil
	}
	for i := range q.slots {
		q.slots[i].done = make(chan int64, 1)
		q.free <- uint32(i)
	}
	// Its count is never read: the poller tells each increment (edge-triggered), which is enough.
	go func() { _ = poller.Read(func(uintptr) bool { q.reap(); return false }) }()
	return q
}

func (q *queue) write(fd uintptr, p []byte, off int64) (int, error) {
	i := <-q.free
	defer func() { q.free <- i }()
	s := &q.slots[i]
	s.p = p
	s.cb = iocb{
		data: uint64(i), opcode: opWrite, rwFlags: dsync, fd: uint32(fd),
		buf: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))), len: uint64(len(p)), off: off, flags: flagWake, eventFd: q.wakeFd,
	}
	cb := &s.cb
	writing.Add(1)
	n, _, errno := syscall.Syscall(syscall.SYS_IO_SUBMIT, uintptr(unsafe.Pointer(q.ring)), 1, uintptr(unsafe.Pointer(&cb)))
	runtime.KeepAlive(s)
	if errno == 0 && n != 1 {
		errno = syscall.EAGAIN
	}
	if errno != 0 {
		writing.Add(-1)
		s.p = nil
		return 0, errno
	}
	res := <-s.done
	s.p = nil
	if res < 0 {
		return 0, syscall.Errno(-res)
	}
	return int(res), nil
}

// reap tells the writers whose writes are done. It does not wait, and may be called by anybody.
func (q *queue) reap() {
	r := q.ring
	for atomic.LoadUint32(&r.head) != atomic.LoadUint32(&r.tail) && q.reaper.TryLock() {
		var e event
		head := atomic.LoadUint32(&r.head)
		found := head != atomic.LoadUint32(&r.tail)
		if found {
			e = q.events[head]
			atomic.StoreUint32(&r.head, (head+1)%uint32(len(q.events)))
			writing.Add(-1)
		}
		q.reaper.Unlock()
		if found {
			q.slots[e.slot].done <- e.res
		}
	}
}

// look is reap, if there is a reason; for those who pass by between two requests.
func look() {
	if writing.Load() > 0 {
		theQueue().reap()
	}
}
