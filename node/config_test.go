package node

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"kai/node/ring"
)

func TestLoadDefaults(t *testing.T) {
	c, err := Load(map[string]string{"PATH": "/bin", "KAI_ZONE": ""})
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]any{
		"127.0.0.1:11211": c.Listen, "127.0.0.1:11212": c.PeerListen, "127.0.0.1:11213": c.GossipListen,
		"127.0.0.1:11214": c.AdminListen, "3:2:2": c.Quorum, "127.0.0.1": c.Advertise, "always": c.Durability,
		"info": c.LogLevel, "json": c.LogFormat, "2s": c.RequestTimeout, "1MiB": c.MaxValueBytes, "256MiB": c.CacheBytes,
	} {
		if fmt.Sprint(got) != name {
			t.Errorf("got %v, want %s", got, name)
		}
	}
	if c.BootstrapExpect != 1 || c.Weight != ring.WeightOne || c.Partitions != 1024 || c.VNodes != 128 || c.MaxConnections != 4096 || c.Expiration || c.FlushAll ||
		c.DataDir != "./data" || c.Cluster != "kai" || c.Zone != "" || c.Discovery != "" {
		t.Errorf("%+v", c)
	}
	for _, s := range c.Settings() {
		if want := "default"; s.Source != want && s.Name != "KAI_ADVERTISE" {
			t.Errorf("%s comes from %s", s.Name, s.Source)
		}
	}
}

func TestLoadReadsEveryVariable(t *testing.T) {
	environ := map[string]string{
		"KAI_LISTEN": ":1", "KAI_PEER_LISTEN": "0.0.0.0:2", "KAI_GOSSIP_LISTEN": "[::1]:3", "KAI_ADMIN_LISTEN": "localhost:4",
		"KAI_ADVERTISE": "kai-1.example", "KAI_DATA_DIR": "/d", "KAI_CLUSTER": "c", "KAI_DISCOVERY": "static:10.0.0.1:11213",
		"KAI_BOOTSTRAP_EXPECT": "3", "KAI_QUORUM": "5:3:3", "KAI_PARTITIONS": "64", "KAI_VNODES": "8", "KAI_ZONE": "a",
		"KAI_DURABILITY": "interval", "KAI_REQUEST_TIMEOUT": "500ms", "KAI_MAX_VALUE_BYTES": "2MiB", "KAI_MAX_CONNECTIONS": "7",
		"KAI_CACHE_BYTES": "0", "KAI_EXPIRATION": "true", "KAI_FLUSH_ALL": "1", "KAI_GOSSIP_KEY": "MDEyMzQ1Njc4OWFiY2RlZg==",
		"KAI_LOG_LEVEL": "DEBUG", "KAI_LOG_FORMAT": "text", "KAI_REPLACE_AFTER": "10s", "KAI_MOVES": "3", "KAI_DRAIN_TIMEOUT": "1m", "KAI_WEIGHT": "2.5",
		"KAI_PURGE_AFTER": "2m", "KAI_TRANSFER_RATE": "2MiB", "KAI_BACKUP_URL": "file:///b", "KAI_BACKUP_INTERVAL": "10m", "KAI_BACKUP_KEEP": "5", "KAI_BACKUP_KEY": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "KAI_BACKUP_UPLOAD_RATE": "3MiB", "KAI_BACKUP_DOWNLOAD_RATE": "64KiB",
		"KAI_TRACE_SLOW": "20ms", "KAI_TRACE_RATIO": "0.25",
	}
	if names := variables(); len(names) != len(environ) {
		t.Fatalf("%d variables, %d in this test: %v", len(names), len(environ), names)
	}
	c, err := Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen.String() != "0.0.0.0:1" || c.PeerListen.String() != "0.0.0.0:2" || c.GossipListen.String() != "[::1]:3" || c.AdminListen.String() != "127.0.0.1:4" {
		t.Errorf("listeners %v %v %v %v", c.Listen, c.PeerListen, c.GossipListen, c.AdminListen)
	}
	if c.Quorum != (ring.Quorum{N: 5, R: 3, W: 3}) || c.RequestTimeout != 500*time.Millisecond || c.TraceSlow != 20*time.Millisecond || c.TraceRatio != 0.25 || c.MaxValueBytes != 2<<20 ||
		c.Weight != 2500 || c.ReplaceAfter != 10*time.Second || c.Moves != 3 || c.DrainTimeout != time.Minute || c.PurgeAfter != 2*time.Minute || c.TransferRate != 2<<20 || c.BackupURL != "file:///b" || c.BackupInterval != 10*time.Minute || c.BackupKeep != 5 || len(c.BackupKey.Bytes()) != 32 || c.BackupUploadRate != 3<<20 || c.BackupDownloadRate != 64<<10 || c.CacheBytes != 0 || !c.Expiration || !c.FlushAll || c.LogLevel.Level() != slog.LevelDebug || c.LogFormat != LogText ||
		c.Durability != DurabilityInterval || string(c.GossipKey.Bytes()) != "0123456789abcdef" {
		t.Errorf("%+v", c)
	}
	for _, s := range c.Settings() {
		if s.Source != "env" {
			t.Errorf("%s comes from %s", s.Name, s.Source)
		}
	}
}

// Every wrong value names its variable and says the fix; the last column is part of the problem.
func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct{ name, value, problem string }{
		{"KAI_LISTEN", "11211", "host:port"},
		{"KAI_LISTEN", "example.com:1", "IP address"},
		{"KAI_PEER_LISTEN", "127.0.0.1:0", "65535"},
		{"KAI_GOSSIP_LISTEN", "127.0.0.1:65536", "65535"},
		{"KAI_ADMIN_LISTEN", ":11211", "taken by KAI_LISTEN"},
		{"KAI_ADVERTISE", "10.0.0.1:11212", "host"},
		{"KAI_ADVERTISE", "0.0.0.0", "host"},
		{"KAI_CLUSTER", "two words", "name"},
		{"KAI_DISCOVERY", "consul:x", "unknown form"},
		{"KAI_DISCOVERY", "static:", "nobody"},
		{"KAI_BOOTSTRAP_EXPECT", "0", "between"},
		{"KAI_BOOTSTRAP_EXPECT", "3", "knows no peers"},
		{"KAI_QUORUM", "3:1:2", "R+W"},
		{"KAI_QUORUM", "4:3:2", "N/2"},
		{"KAI_QUORUM", "3:2", "three numbers"},
		{"KAI_QUORUM", "9:5:5", "N ≤ 7"},
		{"KAI_PARTITIONS", "1000", "power of two"},
		{"KAI_PARTITIONS", "131072", "power of two"},
		{"KAI_VNODES", "many", "number"},
		{"KAI_ZONE", strings.Repeat("z", 65), "name"},
		{"KAI_WEIGHT", "0", "0.1 to 10"},
		{"KAI_WEIGHT", "heavy", "0.1 to 10"},
		{"KAI_DURABILITY", "sometimes", "values"},
		{"KAI_TRACE_RATIO", "2", "between 0 and 1"},
		{"KAI_TRACE_RATIO", "NaN", "between 0 and 1"},
		{"KAI_TRACE_SLOW", "2h", "between"},
		{"KAI_REQUEST_TIMEOUT", "2", "unit"},
		{"KAI_REQUEST_TIMEOUT", "2h", "between"},
		{"KAI_MAX_VALUE_BYTES", "65MiB", "between"},
		{"KAI_MAX_VALUE_BYTES", "0", "between"},
		{"KAI_MAX_CONNECTIONS", "-1", "between"},
		{"KAI_CACHE_BYTES", "-1", "size"},
		{"KAI_CACHE_BYTES", "9223372036854775807TiB", "too large"},
		{"KAI_EXPIRATION", "yes please", "true nor false"},
		{"KAI_GOSSIP_KEY", "c2VjcmV0", "holds 6 bytes"},
		{"KAI_GOSSIP_KEY", "s3cr3t!!", "base64"},
		{"KAI_LOG_LEVEL", "loud", "values"},
		{"KAI_LOG_FORMAT", "xml", "values"},
		{"KAI_QOURUM", "3:2:2", "no such variable"},
	} {
		_, err := Load(map[string]string{c.name: c.value})
		var all *ConfigError
		if !errors.As(err, &all) || len(all.Faults) != 1 {
			t.Errorf("%s=%q: %v", c.name, c.value, err)
			continue
		}
		f := all.Faults[0]
		if f.Variable != c.name || !strings.Contains(f.Problem, c.problem) || f.Fix == "" || strings.HasSuffix(f.Fix, "write ") {
			t.Errorf("%s=%q: %+v", c.name, c.value, f)
		}
		if strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s is shown: %v", c.name, err)
		}
	}
}

func TestLoadReportsEveryFaultAtOnce(t *testing.T) {
	_, err := Load(map[string]string{"KAI_QUORUM": "3:1:1", "KAI_PARTITIONS": "7", "KAI_LISTEN": "x", "KAI_QUORM": "3:2:2"})
	var all *ConfigError
	if !errors.As(err, &all) || len(all.Faults) != 4 {
		t.Fatal(err)
	}
	if f := all.Faults[2]; f.Variable != "KAI_QUORM" || !strings.Contains(f.Fix, "KAI_QUORUM") {
		t.Errorf("no suggestion: %+v", f)
	}
	t.Log(err)
}

// A Kubernetes service called kai must not keep the nodes of its own pods from starting.
func TestLoadIgnoresServiceLinks(t *testing.T) {
	environ := map[string]string{}
	for _, name := range []string{"KAI_SERVICE_HOST", "KAI_SERVICE_PORT", "KAI_SERVICE_PORT_MEMCACHE", "KAI_PORT", "KAI_PORT_11211_TCP",
		"KAI_PORT_11211_TCP_ADDR", "KAI_PEERS_SERVICE_HOST", "KAI_PEERS_PORT_11213_UDP_PROTO", "KAI_E2E", "KAI_E2E_SEED"} {
		environ[name] = "tcp://10.0.0.1:11211"
	}
	if _, err := Load(environ); err != nil {
		t.Error(err)
	}
}

func TestResolveAdvertise(t *testing.T) {
	loopback, public := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("203.0.113.9")
	four, six := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::7")
	for _, c := range []struct {
		peer, gossip string
		interfaces   []netip.Addr
		want         string
	}{
		{"127.0.0.1:2", "127.0.0.1:3", nil, "127.0.0.1"},
		{"10.0.0.4:2", ":3", nil, "10.0.0.4"},
		{":2", "10.0.0.4:3", nil, "10.0.0.4"},
		{":2", ":3", []netip.Addr{loopback, public, six, four}, "10.1.2.3"},
		{"[::]:2", "[::]:3", []netip.Addr{loopback, six}, "fd00::7"},
		{":2", ":3", []netip.Addr{six}, ""},
		{":2", ":3", []netip.Addr{loopback, public}, ""},
	} {
		conf, err := Load(map[string]string{"KAI_PEER_LISTEN": c.peer, "KAI_GOSSIP_LISTEN": c.gossip})
		if err != nil {
			t.Fatal(err)
		}
		conf, err = conf.ResolveAdvertise(c.interfaces)
		if conf.Advertise != c.want || (c.want == "") != errors.Is(err, ErrNoAdvertise) {
			t.Errorf("%+v: %q, %v", c, conf.Advertise, err)
		}
	}
	if _, err := Load(map[string]string{"KAI_PEER_LISTEN": "10.0.0.1:2", "KAI_GOSSIP_LISTEN": "10.0.0.2:3"}); err == nil {
		t.Error("two hosts under one name accepted")
	}
}

func TestAdvertisedAddresses(t *testing.T) {
	c, err := Load(map[string]string{"KAI_PEER_LISTEN": "[::]:2", "KAI_GOSSIP_LISTEN": ":3", "KAI_ADMIN_LISTEN": ":4", "KAI_ADVERTISE": "fd00::7"})
	if err != nil {
		t.Fatal(err)
	}
	if c.PeerAddr() != "[fd00::7]:2" || c.GossipAddr() != "[fd00::7]:3" || c.AdminAddr() != "[fd00::7]:4" {
		t.Error(c.PeerAddr(), c.GossipAddr(), c.AdminAddr())
	}
	c.AdminListen = MakeListenAddr(netip.MustParseAddrPort("127.0.0.1:4"))
	if c.AdminAddr() != "127.0.0.1:4" || c.AdminListen.Dial() != "127.0.0.1:4" || c.PeerListen.Dial() != "localhost:2" || c.GossipListen.Dial() != "127.0.0.1:3" {
		t.Error(c.AdminAddr(), c.AdminListen.Dial(), c.PeerListen.Dial())
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	c, err := Load(map[string]string{"KAI_GOSSIP_KEY": "MDEyMzQ1Njc4OWFiY2RlZg"})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "key", c.GossipKey, "config", c)
	shown := log.String() + fmt.Sprintf("%v %+v %#v %s %x %d", c, c, c.GossipKey, c.GossipKey, c.GossipKey, c.GossipKey) + fmt.Sprint(c.Settings())
	for _, leak := range []string{"MDEyMzQ1", "0123456789abcdef", "30313233", "48 49 50", "[48"} {
		if strings.Contains(shown, leak) {
			t.Errorf("%q is shown in %s", leak, shown)
		}
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{"0": 0, "17": 17, "1kib": 1024, "64MiB": 64 << 20, "2 GiB": 2 << 30, "3MB": 3e6, "5B": 5, "1TiB": 1 << 40} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%q: %d, %v", text, b, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5MiB", "1 2", "16777216TiB", "0x10", "1e3", "1MiBB"} {
		var b Bytes
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: %d", text, b)
		}
	}
}

// FuzzLoad: no environment makes Load panic; what it accepts is within bounds, and loads again from
// its own settings to the same values.
func FuzzLoad(f *testing.F) {
	names := variables()
	for i := range names {
		for _, value := range []string{"127.0.0.1:1", "3:2:2", "1024", "64MiB", "2s", "always", "static:a:1", "MDEyMzQ1Njc4OWFiY2RlZg=="} {
			f.Add(uint8(i), value, uint8(i+1), "1", "KAI_X")
		}
	}
	f.Fuzz(func(t *testing.T, a uint8, aValue string, b uint8, bValue string, other string) {
		environ := map[string]string{names[int(a)%len(names)]: aValue, names[int(b)%len(names)]: bValue, other: "x"}
		before := maps.Clone(environ)
		c, err := Load(environ)
		if !maps.Equal(before, environ) {
			t.Fatal("the environment was changed")
		}
		var all *ConfigError
		if err != nil {
			if !errors.As(err, &all) || len(all.Faults) == 0 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		if c.Quorum.Check() != nil || c.Partitions < 1 || c.Partitions > math.MaxUint16+1 || !c.Listen.addr.IsValid() || c.MaxValueBytes < 1 || c.RequestTimeout <= 0 {
			t.Fatalf("accepted %+v", c)
		}
		again := map[string]string{}
		for _, s := range c.Settings() {
			if s.Name != "KAI_GOSSIP_KEY" {
				again[s.Name] = s.Value
			}
		}
		d, err := Load(again)
		if err != nil {
			t.Fatalf("%v, from %v", err, again)
		}
		d.GossipKey, d.given, d.advertiseResolved = c.GossipKey, c.given, c.advertiseResolved
		if !reflect.DeepEqual(c, d) {
			t.Fatalf("%+v, again %+v", c, d)
		}
	})
}
