package node

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"kai/backup"
	"kai/discovery"
	"kai/node/ring"
)

const (
	maxBootstrapExpect = 1000
	maxVNodes          = 4096
	maxMoves           = 1000
	maxName            = 64
	maxValueBytes      = 64 << 20
	maxConnections     = 1_000_000
	maxCacheBytes      = 1 << 40
	minRequestTimeout  = 10 * time.Millisecond
	minTraceSlow       = 100 * time.Microsecond
	maxRequestTimeout  = time.Minute
)

// check returns the faults of values that could be read, each by itself and then together.
func (c *Config) check() []Fault {
	var faults checker
	faults.listen(c)
	if c.Advertise != "" && !isHost(c.Advertise) {
		faults.add("Advertise", c.Advertise, "is not a host")
	}
	if !isName(c.Cluster) || c.Cluster == "" {
		faults.add("Cluster", c.Cluster, "is not a name")
	}
	if !isName(c.Zone) {
		faults.add("Zone", c.Zone, "is not a name")
	}
	if _, err := discovery.Parse(c.Discovery); err != nil {
		faults.add("Discovery", c.Discovery, err.Error())
	}
	faults.within("BootstrapExpect", int64(c.BootstrapExpect), 1, maxBootstrapExpect)
	if err := c.Quorum.Check(); err != nil {
		faults.add("Quorum", c.Quorum, err.Error())
	}
	if p := c.Partitions; p < 1 || p > ring.MaxPartitions || p&(p-1) != 0 {
		faults.add("Partitions", p, "is not a power of two from 1 to 65536")
	}
	faults.within("Moves", int64(c.Moves), 1, maxMoves)
	if c.ReplaceAfter < time.Second || c.ReplaceAfter > 24*time.Hour {
		faults.add("ReplaceAfter", c.ReplaceAfter, "is not between 1s and 24h")
	}
	if c.TransferRate < 1<<20 || c.TransferRate > 1<<40 {
		faults.add("TransferRate", c.TransferRate, "is not between 1MiB and 1TiB")
	}
	if c.PurgeAfter < 0 || c.PurgeAfter > 8760*time.Hour {
		faults.add("PurgeAfter", c.PurgeAfter, "is not between 0 and 8760h")
	}
	if c.DrainTimeout < 0 || c.DrainTimeout > 24*time.Hour {
		faults.add("DrainTimeout", c.DrainTimeout, "is not between 0 and 24h")
	}
	if err := checkBucketURL(c.BackupURL); err != nil {
		faults.add("BackupURL", c.BackupURL, err.Error())
	}
	if c.BackupInterval != 0 && (c.BackupInterval < time.Minute || c.BackupInterval > 8760*time.Hour) {
		faults.add("BackupInterval", c.BackupInterval, "is neither 0 nor between 1m and 8760h")
	}
	faults.within("BackupKeep", int64(c.BackupKeep), 1, 100000)
	faults.within("VNodes", int64(c.VNodes), 1, maxVNodes)
	faults.within("MaxConnections", int64(c.MaxConnections), 1, maxConnections)
	faults.within("MaxValueBytes", int64(c.MaxValueBytes), 1, maxValueBytes)
	faults.within("CacheBytes", int64(c.CacheBytes), 0, maxCacheBytes)
	if c.RequestTimeout < minRequestTimeout || c.RequestTimeout > maxRequestTimeout {
		faults.add("RequestTimeout", c.RequestTimeout, fmt.Sprintf("is not between %s and %s", minRequestTimeout, maxRequestTimeout))
	}
	if c.TraceSlow != 0 && (c.TraceSlow < minTraceSlow || c.TraceSlow > maxRequestTimeout) {
		faults.add("TraceSlow", c.TraceSlow, fmt.Sprintf("is neither 0 nor between %s and %s", minTraceSlow, maxRequestTimeout))
	}
	if !(c.TraceRatio >= 0 && c.TraceRatio <= 1) { // not a number is neither
		faults.add("TraceRatio", c.TraceRatio, "is not between 0 and 1")
	}
	if n := len(c.BackupKey.raw); n != 0 && n != backup.KeySize {
		faults.add("BackupKey", masked, fmt.Sprintf("holds %d bytes", n))
	}
	for name, rate := range map[string]Bytes{"BackupUploadRate": c.BackupUploadRate, "BackupDownloadRate": c.BackupDownloadRate} {
		if rate != 0 && (rate < 64<<10 || rate > 1<<40) {
			faults.add(name, rate, "is neither 0 nor between 64KiB and 1TiB")
		}
	}
	if n := len(c.GossipKey.raw); n != 0 && n != 16 && n != 24 && n != 32 {
		faults.add("GossipKey", masked, fmt.Sprintf("holds %d bytes", n))
	}
	if c.BootstrapExpect > 1 && c.Discovery == "" {
		faults.fault("BootstrapExpect", c.BootstrapExpect, "a node that knows no peers waits for them for ever", "set KAI_DISCOVERY so that the founders find each other, or write 1")
	}
	return faults
}

type checker []Fault

// add reports that the value of the field with that name is wrong; the field's tag says the fix.
func (f *checker) add(name string, value any, problem string) {
	field, _ := reflect.TypeFor[Config]().FieldByName(name)
	*f = append(*f, fault(field, fmt.Sprint(value), problem))
}

func (f *checker) fault(name string, value any, problem, fix string) {
	field, _ := reflect.TypeFor[Config]().FieldByName(name)
	*f = append(*f, Fault{field.Tag.Get("env"), fmt.Sprint(value), problem, fix})
}

func (f *checker) within(name string, value, least, most int64) {
	if value < least || value > most {
		f.add(name, value, fmt.Sprintf("is not between %d and %d", least, most))
	}
}

// listen refuses two listeners on one address, and two listeners that others would have to reach
// by different hosts under one name.
func (f *checker) listen(c *Config) {
	listeners := []struct {
		name string
		addr ListenAddr
	}{{"Listen", c.Listen}, {"PeerListen", c.PeerListen}, {"GossipListen", c.GossipListen}, {"AdminListen", c.AdminListen}}
	for i, one := range listeners {
		for _, earlier := range listeners[:i] {
			if collide(one.addr, earlier.addr) {
				field, _ := reflect.TypeFor[Config]().FieldByName(earlier.name)
				f.fault(one.name, one.addr, "the port is taken by "+field.Tag.Get("env")+"="+earlier.addr.String(), "give each listener a port of its own")
				break
			}
		}
	}
	peer, gossip := c.PeerListen.IP(), c.GossipListen.IP()
	if c.Advertise == "" && isSpecific(peer) && isSpecific(gossip) && peer != gossip {
		f.fault("Advertise", "", fmt.Sprintf("KAI_PEER_LISTEN and KAI_GOSSIP_LISTEN are on different hosts (%s, %s)", peer, gossip), "write the host under which others reach both")
	}
}

func collide(a, b ListenAddr) bool {
	return a.Port() == b.Port() && a.addr.IsValid() && b.addr.IsValid() &&
		(a.IP() == b.IP() || a.IP().IsUnspecified() || b.IP().IsUnspecified())
}

func isSpecific(ip netip.Addr) bool { return ip.IsValid() && !ip.IsUnspecified() }

// isName reports whether s is empty or a name that fits into gossip, file names and metrics.
func isName(s string) bool {
	return len(s) <= maxName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}

// isHost reports whether s is an IP address that others can dial, or looks like a host name.
func isHost(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return !ip.IsUnspecified()
	}
	return len(s) <= 253 && isHostName(s)
}

func isHostName(s string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || !isName(label) {
			return false
		}
	}
	return true
}
