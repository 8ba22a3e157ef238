package node

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"kai/node/ring"
)

// ListenAddr is an IP address and a port to listen on.
type ListenAddr struct{ addr netip.AddrPort }

// MakeListenAddr wraps addr, which must be valid.
func MakeListenAddr(addr netip.AddrPort) ListenAddr { return ListenAddr{addr} }

// String is host:port, as net.Listen takes it.
func (a ListenAddr) String() string { return a.addr.String() }

// IP is the address to listen on; the unspecified address means all interfaces.
func (a ListenAddr) IP() netip.Addr { return a.addr.Addr() }

// Port is from 1 to 65535 in a Config that Load made.
func (a ListenAddr) Port() uint16 { return a.addr.Port() }

// Dial is where a process on the same machine reaches the address.
func (a ListenAddr) Dial() string {
	switch ip := a.IP(); {
	case !ip.IsUnspecified():
		return a.String()
	case ip.Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port()).String()
	default:
		return net.JoinHostPort("localhost", strconv.Itoa(int(a.Port())))
	}
}

// UnmarshalText accepts ip:port, localhost:port, and :port for all interfaces. The latter becomes
// 0.0.0.0:port, which package net takes for IPv6 too where there is IPv6; [::]:port would fail where
// there is none.
func (a *ListenAddr) UnmarshalText(text []byte) error {
	host, port, err := net.SplitHostPort(string(text))
	if err != nil {
		return errors.New("is not host:port")
	}
	switch host {
	case "":
		host = "0.0.0.0"
	case "localhost":
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return errors.New("its host is not an IP address of this machine")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return errors.New("its port is not a number from 1 to 65535")
	}
	a.addr = netip.AddrPortFrom(ip, uint16(n))
	return nil
}

// Bytes is a size in bytes.
type Bytes int64

// byteUnits are the suffixes of Bytes; the binary ones come first, largest first, for String.
var byteUnits = [...]struct {
	suffix string
	size   int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

// String uses the largest binary unit that is exact.
func (b Bytes) String() string {
	for _, u := range byteUnits[:4] {
		if b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Round is for people: one decimal of the largest binary unit that b fills.
func (b Bytes) Round() string {
	for _, u := range byteUnits[:4] {
		if int64(b) >= u.size {
			return strconv.FormatFloat(float64(b)/float64(u.size), 'f', 1, 64) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// UnmarshalText accepts a whole number of bytes, or of KiB, MiB, GiB, TiB (powers of 1024) or KB,
// MB, GB, TB (powers of 1000), in any case, with or without a space.
func (b *Bytes) UnmarshalText(text []byte) error {
	number, size := string(text), int64(1)
	for _, u := range byteUnits {
		if at := len(number) - len(u.suffix); at >= 0 && strings.EqualFold(number[at:], u.suffix) {
			number, size = strings.TrimRight(number[:at], " "), u.size
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil {
		return errors.New("is not a size in bytes")
	}
	if int64(n) > math.MaxInt64/size {
		return errors.New("is too large")
	}
	*b = Bytes(int64(n) * size)
	return nil
}

// Durability says when a write is flushed to disk.
type Durability uint8

const (
	// DurabilityAlways flushes before a write is acknowledged.
	DurabilityAlways Durability = iota
	// DurabilityInterval flushes a moment later.
	DurabilityInterval
)

func (d Durability) String() string {
	if d == DurabilityInterval {
		return "interval"
	}
	return "always"
}

// UnmarshalText accepts always and interval.
func (d *Durability) UnmarshalText(text []byte) error {
	return oneOf(d, text, DurabilityAlways, DurabilityInterval)
}

// LogFormat is how log lines look.
type LogFormat uint8

const (
	// LogJSON is for machines that collect logs.
	LogJSON LogFormat = iota
	// LogText is for people.
	LogText
)

func (f LogFormat) String() string {
	if f == LogText {
		return "text"
	}
	return "json"
}

// UnmarshalText accepts json and text.
func (f *LogFormat) UnmarshalText(text []byte) error { return oneOf(f, text, LogJSON, LogText) }

func (l LogLevel) String() string { return strings.ToLower(slog.Level(l).String()) }

// UnmarshalText accepts debug, info, warn and error.
func (l *LogLevel) UnmarshalText(text []byte) error {
	return oneOf(l, text, LogLevel(slog.LevelDebug), LogLevel(slog.LevelInfo), LogLevel(slog.LevelWarn), LogLevel(slog.LevelError))
}

// oneOf sets to to the value whose String is text, in any case.
func oneOf[T fmt.Stringer](to *T, text []byte, values ...T) error {
	for _, v := range values {
		if strings.EqualFold(v.String(), string(text)) {
			*to = v
			return nil
		}
	}
	return errors.New("is not one of the values there are")
}

// Secret holds bytes that no format verb, logger or encoder shows.
type Secret struct{ raw []byte }

// Bytes are the decoded bytes, nil when none were given. The caller must not change them.
func (s Secret) Bytes() []byte { return s.raw }

// UnmarshalText accepts base64, standard or URL, with or without padding.
func (s *Secret) UnmarshalText(text []byte) error {
	plain := strings.TrimRight(string(text), "=")
	raw, err := base64.RawStdEncoding.DecodeString(plain)
	if err != nil {
		raw, err = base64.RawURLEncoding.DecodeString(plain)
	}
	if err != nil {
		return errors.New("is not base64")
	}
	s.raw = raw
	return nil
}

const masked = "(secret)"

func (s Secret) String() string {
	if len(s.raw) == 0 {
		return ""
	}
	return masked
}

// Format implements fmt.Formatter, for all verbs: %d would otherwise print the bytes.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

func parseQuorum(text string) (any, error) {
	var q ring.Quorum
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return nil, errors.New("is not three numbers N:R:W")
	}
	for i, to := range []*int{&q.N, &q.R, &q.W} {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil {
			return nil, errors.New("is not three numbers N:R:W")
		}
		*to = int(n)
	}
	return q, nil
}
