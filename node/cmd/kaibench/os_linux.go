package main

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ownCPU is the processor time of this process so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// preciseSleep asks for wake-ups of the calling thread without the usual 50 µs of slack.
func preciseSleep() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0) }

// sleep blocks the calling thread for d, or less when a signal comes in. It keeps the thread's share
// of GOMAXPROCS meanwhile: giving it up and asking for it back, as an ordinary system call does,
// would cost more than the sleep.
func sleep(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// childAttributes keep Ctrl-C at the terminal from reaching the servers, which are stopped in order,
// and end them when the generator is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// Signals that stop a process, and have it go on.
const (
	sigStop     = syscall.SIGSTOP
	sigContinue = syscall.SIGCONT
)
