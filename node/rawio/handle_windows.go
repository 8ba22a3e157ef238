package rawio

import "syscall"

type handle = syscall.Handle
