package discovery

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// zone is a resolver that knows some names, fails for others, and hangs for "hang".
type zone struct {
	hosts map[string][]string
	srv   map[string][]*net.SRV
}

func (z zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if host == "hang" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var addrs []netip.Addr
	for _, a := range z.hosts[host] {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	if addrs == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

func (z zone) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if service+proto != "" || z.srv[name] == nil {
		return "", nil, errors.New("no such service")
	}
	return name, z.srv[name], nil
}

func peers(t *testing.T, spec string, r Resolver) (string, error) {
	t.Helper()
	f, err := ParseWith(spec, r)
	if err != nil {
		t.Fatalf("Parse(%q): %v", spec, err)
	}
	found, err := f.Peers(t.Context())
	var addrs []string
	for _, p := range found {
		addrs = append(addrs, p.Addr)
	}
	return strings.Join(addrs, " "), err
}

func TestPeers(t *testing.T) {
	seeds := filepath.Join(t.TempDir(), "seeds")
	if err := os.WriteFile(seeds, []byte("# ours\n10.0.0.1:1 # first\n\n  kai:2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := zone{
		hosts: map[string][]string{"kai": {"10.0.0.1", "10.0.0.2", "fd00::1"}, "one": {"::ffff:10.0.0.9"}},
		srv:   map[string][]*net.SRV{"_gossip._tcp.kai": {{Target: "one.", Port: 7}, {Target: "kai.", Port: 8}}},
	}
	for _, c := range []struct{ spec, want string }{
		{"", ""},
		{"static:10.0.0.1:5", "10.0.0.1:5"},
		{"static:10.0.0.1:5,[::1]:6,one:7,", "10.0.0.1:5 [::1]:6 10.0.0.9:7"},
		{"dns:kai:11213", "10.0.0.1:11213 10.0.0.2:11213 [fd00::1]:11213"},
		{"dns:_gossip._tcp.kai", "10.0.0.9:7 10.0.0.1:8 10.0.0.2:8 [fd00::1]:8"},
		{"file:" + seeds, "10.0.0.1:1 10.0.0.1:2 10.0.0.2:2 [fd00::1]:2"},
		{"static:10.0.0.1:5 ; static:10.0.0.1:5,10.0.0.3:5", "10.0.0.1:5 10.0.0.3:5"},
	} {
		got, err := peers(t, c.spec, r)
		if err != nil || got != c.want {
			t.Errorf("%q: %q, %v; want %q", c.spec, got, err, c.want)
		}
	}
}

func TestPartOfTheAnswerWithItsError(t *testing.T) {
	got, err := peers(t, "static:nowhere:1,10.0.0.1:1", zone{})
	if got != "10.0.0.1:1" || err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("%q, %v", got, err)
	}
	seeds := filepath.Join(t.TempDir(), "seeds")
	if err := os.WriteFile(seeds, []byte("10.0.0.1\n10.0.0.2:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err = peers(t, "file:"+seeds, zone{})
	if got != "10.0.0.2:1" || err == nil || !strings.Contains(err.Error(), "seeds:1:") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestFileIsReadEachTime(t *testing.T) {
	seeds := filepath.Join(t.TempDir(), "seeds")
	f, err := Parse("file:" + seeds)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Peers(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(seeds, []byte("10.0.0.1:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := f.Peers(t.Context()); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
}

func TestLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got, err := peers(t, "static:hang:1,hang:2,hang:3,10.0.0.1:1", zone{})
		if got != "10.0.0.1:1" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q, %v", got, err)
		}
		if took := time.Since(start); took != LookupTimeout {
			t.Errorf("took %v", took)
		}
	})
}

func TestParseSaysWhatWouldBeRight(t *testing.T) {
	for _, c := range []struct{ spec, hint string }{
		{"10.0.0.1:5", "static:host:port"},
		{"consul:x", "dns:name:port"},
		{"static:", "names nobody"},
		{"static:10.0.0.1", "not host:port"},
		{"static::5", "not host:port"},
		{"static:a:0", "1 to 65535"},
		{"static:a:http", "1 to 65535"},
		{"dns:kai", "not host:port"},
		{"dns:_g._tcp.kai:5", "without one"},
		{"file:", "names no file"},
		{"static:a:1 nonsense", "nonsense"},
	} {
		if _, err := Parse(c.spec); err == nil || !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%q: %v; want a hint of %q", c.spec, err, c.hint)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "static:a:1,[::1]:2", "dns:a:1", "dns:_a._tcp.b", "file:x", ";;static:", "static:[fe80::1%x]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		if strings.Contains(spec, "file") || strings.Contains(spec, "aws") || strings.Contains(spec, "gce") {
			return // would read files, or ask clouds
		}
		finder, err := ParseWith(spec, zone{hosts: map[string][]string{"a": {"10.0.0.1"}}})
		if err != nil {
			return
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		found, _ := finder.Peers(ctx)
		for _, p := range found {
			if _, err := netip.ParseAddrPort(p.Addr); err != nil {
				t.Fatalf("%q finds %q: %v", spec, p.Addr, err)
			}
		}
	})
}
