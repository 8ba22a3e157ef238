package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// memcachedName is the system all ratios refer to.
const memcachedName = "memcached"

// system is one thing under test: a memcached, or a Kai of one or three nodes.
type system struct {
	name    string
	nodes   int
	procs   []*process
	targets []string
	admins  []string // of the nodes that have one
	dir     string
}

// signal sends sig to all processes of the system.
func (s *system) signal(sig os.Signal) {
	for _, p := range s.procs {
		_ = p.cmd.Process.Signal(sig) // one that ended is found by alive
	}
}

// wake has a stopped system go on, and waits until it is what it was before, at least d: its nodes were away for
// each other, too.
func (s *system) wake(ctx context.Context, d time.Duration) error {
	s.signal(sigContinue)
	begun := time.Now()
	for n, p := range s.procs {
		if n < len(s.admins) {
			if err := p.await(ctx, 30*time.Second, func() bool { return answers(ctx, "http://"+s.admins[n]+"/readyz") }); err != nil {
				return err
			}
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d - time.Since(begun)):
		return s.alive()
	}
}

// systemNames lists what compare measures if it is not told, in the order of a round.
func systemNames() []string {
	return []string{memcachedName, "kai-1-always", "kai-1-interval", "kai-3-always", "kai-3-interval"}
}

// untraced ends the name of a Kai that keeps no requests, and starts no SDK: what telemetry costs is the difference.
const untraced = "-untraced"

// earlier ends the name of a Kai of another build, for instance the one before a change.
const earlier = "-earlier"

// plain is the name without what is special about the system.
func plain(name string) string {
	return strings.TrimSuffix(strings.TrimSuffix(name, untraced), earlier)
}

// known reports whether there is a system of that name.
func known(name string) bool {
	return slices.Contains(systemNames(), plain(name)) && (plain(name) != memcachedName || name == memcachedName)
}

// launch starts a system, with its data and logs in a directory of its own under dir, and waits
// until it serves. Close it also after an error.
func launch(ctx context.Context, name, kai, dir string) (*system, error) {
	s := &system{name: name, nodes: 1}
	var err error
	if s.dir, err = os.MkdirTemp(dir, "kaibench-"+name+"-"); err != nil {
		return s, err
	}
	if name == memcachedName {
		return s, s.memcached(ctx)
	}
	if strings.HasPrefix(name, "kai-3") {
		s.nodes = 3
	}
	return s, s.kai(ctx, kai, plain(name)[strings.LastIndexByte(plain(name), '-')+1:])
}

// close stops the system and removes its files. It may be called on nil.
func (s *system) close() {
	if s == nil {
		return
	}
	for _, p := range s.procs {
		p.stop()
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

// cpu is the processor time of all its processes so far.
func (s *system) cpu() (sum time.Duration) {
	for _, p := range s.procs {
		sum += p.cpu()
	}
	return sum
}

// alive reports a process that ended before its time.
func (s *system) alive() error {
	for _, p := range s.procs {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended (%v):\n%s", p.name, p.err, tail(p.log))
		default:
		}
	}
	return nil
}

func (s *system) run(name string, cmd *exec.Cmd) (*process, error) {
	p, err := start(name, s.dir, cmd)
	if err == nil {
		s.procs = append(s.procs, p)
	}
	return p, err
}

func (s *system) memcached(ctx context.Context) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(ports[0])
	args := []string{"-l", "127.0.0.1", "-p", port, "-U", "0", "-t", "2", "-m", "1024", "-c", "4096"}
	if os.Getuid() == 0 {
		args = append(args, "-u", "root") // it refuses to run as root without being told
	}
	p, err := s.run(memcachedName, exec.Command("memcached", args...))
	if err != nil {
		return err
	}
	s.targets = ports
	return p.await(ctx, 10*time.Second, func() bool {
		nc, err := net.Dial("tcp", ports[0])
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
}

// kai starts s.nodes nodes; each gets four ports: clients, peers, gossip, admin.
func (s *system) kai(ctx context.Context, binary, durability string) error {
	ports, err := freePorts(4 * s.nodes)
	if err != nil {
		return err
	}
	var seeds []string
	for n := range s.nodes {
		seeds = append(seeds, ports[4*n+2])
	}
	for n := range s.nodes {
		own := ports[4*n : 4*n+4]
		name := fmt.Sprintf("%s-%c", s.name, 'a'+n)
		cmd := exec.Command(binary, "node")
		cmd.Env = append(withoutKai(os.Environ()),
			"KAI_LISTEN="+own[0], "KAI_PEER_LISTEN="+own[1], "KAI_GOSSIP_LISTEN="+own[2], "KAI_ADMIN_LISTEN="+own[3],
			"KAI_DATA_DIR="+filepath.Join(s.dir, name), "KAI_CLUSTER="+s.name, "KAI_DURABILITY="+durability,
			"KAI_QUORUM=3:2:2", fmt.Sprintf("KAI_BOOTSTRAP_EXPECT=%d", s.nodes))
		if strings.HasSuffix(s.name, untraced) {
			cmd.Env = append(cmd.Env, "KAI_TRACE_SLOW=0", "OTEL_SDK_DISABLED=true")
		}
		if s.nodes > 1 {
			cmd.Env = append(cmd.Env, "KAI_DISCOVERY=static:"+strings.Join(seeds, ","))
		}
		if _, err := s.run(name, cmd); err != nil {
			return err
		}
		s.targets, s.admins = append(s.targets, own[0]), append(s.admins, own[3])
	}
	for n, p := range s.procs {
		url := "http://" + s.admins[n] + "/readyz"
		if err := p.await(ctx, 30*time.Second, func() bool { return answers(ctx, url) }); err != nil {
			return err
		}
	}
	return nil
}

// withoutKai drops KAI_ settings of the caller's environment: the load decides, not the shell.
func withoutKai(env []string) (kept []string) {
	for _, e := range env {
		if !strings.HasPrefix(e, "KAI_") {
			kept = append(kept, e)
		}
	}
	return kept
}

// answers reports whether a GET of url is answered with 200.
func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// missing says why a system cannot be started on this machine; empty means that it can.
func missing(name, kai string) string {
	if name == memcachedName {
		if _, err := exec.LookPath("memcached"); err != nil {
			return "memcached is not installed, so there is nothing to compare with: ratios are left out (apt-get install memcached)"
		}
		return ""
	}
	if _, err := os.Stat(kai); errors.Is(err, os.ErrNotExist) {
		return kai + " does not exist: build it (go build -o bin/kai ./node/cmd/kai) or name it with -kai"
	}
	return ""
}
