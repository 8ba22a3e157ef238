//go:build linux

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// patience is how long a client waits for a reply: longer than a node may take to say "outcome
// unknown" (KAI_REQUEST_TIMEOUT, 2 s).
const patience = 4 * time.Second

// command is one memcache command on one key.
type command struct {
	verb  string // get, gets, set, add, replace, append, prepend, cas, incr, decr, delete, touch
	key   string
	value string
	token uint64 // of cas
	delta uint64 // of incr and decr
}

// fate is what is known about a command's effect.
type fate uint8

const (
	definite   fate = iota // the reply says what happened
	notApplied             // it had no effect, and never will
	unknown                // it may have taken effect, or may still do so
	senseless              // the reply is none that this command may get: a bug
)

// reply is what came back. word is the reply's first word, with two exceptions: NUMBER for the new
// value of a counter, and NON_NUMERIC.
type reply struct {
	fate   fate
	word   string
	value  string
	token  uint64
	number uint64
	why    string // of fates other than definite: the line, or the error
}

// client is one connection to one node, used by one goroutine.
type client struct {
	nc net.Conn
	in *bufio.Reader
}

func dial(addr string) (*client, error) {
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return &client{nc: nc, in: bufio.NewReader(nc)}, nil
}

func (c *client) close() { c.nc.Close() }

// wire is the command as bytes.
func (q command) wire() string {
	switch q.verb {
	case "get", "gets", "delete":
		return q.verb + " " + q.key + "\r\n"
	case "touch":
		return "touch " + q.key + " 0\r\n"
	case "incr", "decr":
		return fmt.Sprintf("%s %s %d\r\n", q.verb, q.key, q.delta)
	case "cas":
		return fmt.Sprintf("cas %s 0 0 %d %d\r\n%s\r\n", q.key, len(q.value), q.token, q.value)
	}
	return fmt.Sprintf("%s %s 0 0 %d\r\n%s\r\n", q.verb, q.key, len(q.value), q.value)
}

// do sends one command and awaits its reply. When the fate is unknown because the connection broke,
// ok is false and the client must be thrown away.
func (c *client) do(q command) (r reply, ok bool) {
	r, err := c.try(q)
	if err != nil {
		return reply{fate: unknown, why: err.Error()}, false
	}
	return r, true
}

func (c *client) try(q command) (reply, error) {
	if err := c.nc.SetDeadline(time.Now().Add(patience)); err != nil {
		return reply{}, err
	}
	if _, err := io.WriteString(c.nc, q.wire()); err != nil {
		return reply{}, err
	}
	line, err := c.line()
	if err != nil {
		return reply{}, err
	}
	if strings.HasPrefix(line, "VALUE ") && (q.verb == "get" || q.verb == "gets") {
		return c.block(q, line)
	}
	return q.judge(line), nil
}

func (c *client) line() (string, error) {
	line, err := c.in.ReadString('\n')
	return strings.TrimSuffix(line, "\r\n"), err
}

// block reads the rest of a hit: "VALUE <key> <flags> <bytes>[ <token>]", the data, END.
func (c *client) block(q command, line string) (reply, error) {
	f := strings.Fields(line)
	if len(f) < 4 || f[1] != q.key || q.verb == "gets" && len(f) != 5 {
		return reply{fate: senseless, why: line}, nil
	}
	n, err := strconv.ParseUint(f[3], 10, 30)
	if err != nil {
		return reply{fate: senseless, why: line}, nil
	}
	r := reply{word: "VALUE"}
	if q.verb == "gets" {
		if r.token, err = strconv.ParseUint(f[4], 10, 64); err != nil {
			return reply{fate: senseless, why: line}, nil
		}
	}
	data := make([]byte, n+2)
	if _, err := io.ReadFull(c.in, data); err != nil {
		return reply{}, err
	}
	end, err := c.line()
	if err != nil {
		return reply{}, err
	}
	if string(data[n:]) != "\r\n" || end != "END" {
		return reply{fate: senseless, why: fmt.Sprintf("%q behind the value, then %q", data[n:], end)}, nil
	}
	r.value = string(data[:n])
	return r, nil
}

// judge reads a reply of one line. The replies a command may get are those of protocol.txt, and the
// two SERVER_ERRORs by which Kai says that it could not decide.
func (q command) judge(line string) reply {
	allowed := map[string]string{
		"get": "END", "gets": "END", "set": "STORED", "add": "STORED NOT_STORED", "replace": "STORED NOT_STORED",
		"append": "STORED NOT_STORED", "prepend": "STORED NOT_STORED", "cas": "STORED EXISTS NOT_FOUND",
		"incr": "NOT_FOUND", "decr": "NOT_FOUND", "delete": "DELETED NOT_FOUND", "touch": "TOUCHED NOT_FOUND",
	}
	counts := q.verb == "incr" || q.verb == "decr"
	if n, err := strconv.ParseUint(strings.TrimRight(line, " "), 10, 64); err == nil && counts {
		return reply{word: "NUMBER", number: n}
	}
	switch {
	case line != "" && strings.Contains(" "+allowed[q.verb]+" ", " "+line+" "):
		return reply{word: line}
	case counts && line == "CLIENT_ERROR cannot increment or decrement non-numeric value":
		return reply{word: "NON_NUMERIC"}
	case strings.HasPrefix(line, "SERVER_ERROR ") && strings.Contains(line, "(not applied)"):
		return reply{fate: notApplied, why: line}
	case strings.HasPrefix(line, "SERVER_ERROR ") && strings.Contains(line, "(outcome unknown)"):
		return reply{fate: unknown, why: line}
	}
	return reply{fate: senseless, why: line}
}

// values reads many keys at once. A key that is absent is absent from the map.
func (c *client) values(keys []string) (map[string]string, error) {
	if err := c.nc.SetDeadline(time.Now().Add(5 * patience)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c.nc, "get "+strings.Join(keys, " ")+"\r\n"); err != nil {
		return nil, err
	}
	found := map[string]string{}
	for {
		line, err := c.line()
		if err != nil || line == "END" {
			return found, err
		}
		f := strings.Fields(line)
		if len(f) != 4 || f[0] != "VALUE" {
			return nil, errors.New(line)
		}
		n, err := strconv.ParseUint(f[3], 10, 30)
		if err != nil {
			return nil, errors.New(line)
		}
		data := make([]byte, n+2)
		if _, err := io.ReadFull(c.in, data); err != nil {
			return nil, err
		}
		found[f[1]] = string(data[:n])
	}
}
