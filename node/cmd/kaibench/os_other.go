//go:build !linux

package main

import (
	"syscall"
	"time"
)

func ownCPU() time.Duration { return 0 }

func preciseSleep() {}

func sleep(d time.Duration) { time.Sleep(d) }

func childAttributes() *syscall.SysProcAttr { return nil }

// There are none everywhere: systems that wait go on working.
const (
	sigStop     = syscall.Signal(0)
	sigContinue = syscall.Signal(0)
)
