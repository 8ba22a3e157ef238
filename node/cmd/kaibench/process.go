package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// process is a server that compare started.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string // path of its output
	done chan struct{}
	err  error // of Wait; read it after done
}

// start runs a command with its output in a file under dir. Stop it with stop.
func start(name, dir string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, cmd: cmd, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = out, out, childAttributes()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop asks the process to end, and kills it when it has not after 10 seconds. It waits for the end.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(sigContinue)
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// await polls ready until it says yes. It fails when the process ends, ctx ends, or the time is up;
// the error shows the end of the process's output.
func (p *process) await(ctx context.Context, limit time.Duration, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !ready() {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended (%v):\n%s", p.name, p.err, tail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, context.Cause(ctx), tail(p.log))
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// tail is the end of a file.
func tail(path string) []byte {
	b, _ := os.ReadFile(path)
	return bytes.TrimSpace(b[max(0, len(b)-2000):])
}

// cpu is the processor time, user and system, that the process has used so far (proc_pid_stat(5),
// fields 14 and 15, in the kernel's fixed unit of 10 ms). Zero where there is no /proc.
func (p *process) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the name may hold anything
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(string(fields[11]), 10, 64)
	system, _ := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// freePorts returns n loopback addresses whose ports were free, for TCP and UDP, a moment ago.
func freePorts(n int) ([]string, error) {
	var addrs []string
	for tries := 0; len(addrs) < n; tries++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // held until all are found, so that none is found twice
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			if tries > 100 {
				return nil, errors.New("no ports are free for both TCP and UDP")
			}
			continue
		}
		defer u.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
