package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kai/backup"
	"kai/node"
	"kai/node/console"
	"kai/node/record"
)

const (
	// drillStart bounds how long the throw-away node takes until it serves.
	drillStart = 30 * time.Second
	// drillGet is how many keys are asked for at once.
	drillGet = 64
	// drillNamed bounds the keys that are named as different.
	drillNamed = 10
)

// shownDrill is what drill prints.
type shownDrill struct {
	Snapshot string    `json:"snapshot"`
	Cut      time.Time `json:"cut"`
	console.Restoration
	Fetched        int64    `json:"fetched"` // bytes, for the restore
	Bytes          int64    `json:"bytes"`   // of keys and values
	RestoreSeconds float64  `json:"restore_seconds"`
	CompareSeconds float64  `json:"compare_seconds"`
	Compared       int64    `json:"compared"`
	Different      int64    `json:"different"`
	Keys           []string `json:"different_keys,omitempty"` // the first of them
}

func (a app) backupDrillCommand() *cobra.Command {
	var q bucket
	var o output
	var dir string
	cmd := &cobra.Command{
		Use: "drill [SNAPSHOT]", Short: "Practise a restore: into a node that is thrown away, and compare; the newest if none is named", Args: cobra.MaximumNArgs(1),
		Long: `Practise a restore. A node of its own is started in this process, on loopback, with its data in a directory of its own; the
snapshot is restored into it as "kai backup restore" does, every record is read back by a memcache client and compared with the bucket, and the node is
thrown away. It needs the bucket, about the disk space of one replica of everything, and no cluster. What expires meanwhile is left out.

Exit codes: 0 all alike; 1 the snapshot cannot be restored, or something differs; 2 wrong usage.`,
		Example: "  kai backup drill --url s3://my-bucket?region=eu-central-1 -o json",
	}
	q.addTo(cmd)
	o.addTo(cmd)
	cmd.Flags().StringVar(&dir, "dir", "", "where the node's directory is made (default: the system's for temporary files)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		b, m, err := a.openSnapshot(ctx, q, args)
		if err != nil {
			return err
		}
		defer b.Close()
		release, err := backup.Pin(ctx, b, m, "drill")
		if err != nil {
			return failed{exitFailure, err}
		}
		defer release()
		n, err := a.startDrill(ctx, dir)
		if err != nil {
			return failed{exitFailure, fmt.Errorf("the throw-away node: %w", err)}
		}
		v := shownDrill{Snapshot: m.Snapshot, Cut: m.Cut}
		err = errors.Join(a.practise(ctx, b, m, n, &v), n.stop())
		a.progress("", true)
		if err != nil {
			return failed{exitFailure, fmt.Errorf("snapshot %s is not restored: %w", m.Snapshot, err)}
		}
		if o.format == formatJSON {
			if err := printJSON(a.stdout, v); err != nil {
				return err
			}
		} else {
			p := a.printer()
			p.facts([][2]string{
				{"snapshot", fmt.Sprintf("%s, cut %s", v.Snapshot, v.Cut.Format(time.RFC3339))},
				{"restored", fmt.Sprintf("%d records, %s, in %.1f s (%.0f a second); %s fetched", v.Restored, mib(v.Bytes), v.RestoreSeconds, float64(v.Restored)/v.RestoreSeconds, mib(v.Fetched))},
				{"compared", fmt.Sprintf("%d records in %.1f s", v.Compared, v.CompareSeconds)},
			})
			for _, k := range v.Keys {
				p.line(p.bad("differs: " + strconv.Quote(k)))
			}
			if v.Different == 0 {
				p.line(p.good("all alike: this snapshot can be restored"))
			}
		}
		if v.Different > 0 {
			return failed{exitFailure, fmt.Errorf("snapshot %s: %d of %d records differ once they are restored", m.Snapshot, v.Different, v.Compared)}
		}
		return nil
	}
	return cmd
}

// drillNode is a node in this process that is thrown away.
type drillNode struct {
	client, admin string
	stop          func() error // and remove its directory
}

func (a app) startDrill(ctx context.Context, parent string) (*drillNode, error) {
	dir, err := os.MkdirTemp(parent, "kai-drill-")
	if err != nil {
		return nil, err
	}
	env := map[string]string{
		"KAI_DATA_DIR": dir, "KAI_CLUSTER": "drill", "KAI_QUORUM": "1:1:1", "KAI_PARTITIONS": "64", "KAI_DURABILITY": "interval",
		"KAI_EXPIRATION": "true", "KAI_MAX_VALUE_BYTES": "64MiB", "KAI_CACHE_BYTES": "64MiB", "KAI_DRAIN_TIMEOUT": "0s",
	}
	var c node.Config
	if err = freePorts(env); err == nil {
		c, err = node.Load(env)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	running, cancel := context.WithCancel(ctx)
	serves, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- a.run(running, c, node.Options{Logger: slog.New(slog.DiscardHandler), Version: a.version, Ready: func() { close(serves) }})
	}()
	n := &drillNode{client: env["KAI_LISTEN"], admin: env["KAI_ADMIN_LISTEN"], stop: func() error {
		cancel()
		return errors.Join(<-ended, os.RemoveAll(dir))
	}}
	select {
	case <-serves:
		return n, nil
	case err := <-ended:
		ended <- err
		return nil, errors.Join(errors.New("it has ended"), n.stop())
	case <-time.After(drillStart):
		return nil, errors.Join(fmt.Errorf("it does not serve after %s", drillStart), n.stop())
	}
}

// freePorts puts four ports of loopback into env that nobody has now.
func freePorts(env map[string]string) error {
	for _, name := range []string{"KAI_LISTEN", "KAI_PEER_LISTEN", "KAI_GOSSIP_LISTEN", "KAI_ADMIN_LISTEN"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close() // only once all four are there, so that they differ
		env[name] = l.Addr().String()
	}
	return nil
}

// practise restores and compares.
func (a app) practise(ctx context.Context, b *backup.Bucket, m *backup.Manifest, n *drillNode, v *shownDrill) error {
	all := func(int) bool { return true }
	seen := map[string]bool{}
	progress := func(what string, p int) {
		if step := fmt.Sprint(what, p); !seen[step] {
			seen[step] = true
			a.progress(fmt.Sprintf("%s: %d of %d partitions", what, (len(seen)-1)%m.Partitions+1, m.Partitions), false)
		}
	}
	began := time.Now()
	to := newSender(console.Client{Addr: n.admin}, func([]byte) bool { return true })
	done, err := backup.Restore(ctx, b, m, all, false, func(_ context.Context, p int, items []backup.Item) error {
		progress("restore", p)
		return to.take(ctx, items)
	})
	if last := to.close(ctx); err == nil {
		err = last
	}
	if err != nil {
		return err
	}
	v.Restoration, v.Fetched, v.Bytes, v.RestoreSeconds = to.done, done.Fetched, done.Bytes, time.Since(began).Seconds()
	began = time.Now()
	from, err := dialReader(ctx, n.client)
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = backup.Restore(ctx, b, m, all, false, func(_ context.Context, p int, items []backup.Item) error {
		progress("compare", p)
		return from.compare(items, v)
	})
	v.CompareSeconds = time.Since(began).Seconds()
	return err
}

// reader is a memcache client that reads.
type reader struct {
	net.Conn
	r *bufio.Reader
	w *bufio.Writer
}

func dialReader(ctx context.Context, addr string) (*reader, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &reader{conn, bufio.NewReaderSize(conn, 1<<16), bufio.NewWriter(conn)}, nil
}

// compare reads the records of items, and counts those that are not as there.
func (c *reader) compare(items []backup.Item, v *shownDrill) error {
	want := map[string]record.Record{}
	flush := func() error {
		if len(want) == 0 {
			return nil
		}
		// What has expired since it was sent, or will before it is asked for, is no difference.
		soon := uint32(time.Now().Add(time.Minute).Unix())
		for k, r := range want {
			if r.Expiry != 0 && r.Expiry <= soon {
				delete(want, k)
			}
		}
		different, err := c.differing(want)
		if err != nil {
			return err
		}
		v.Compared += int64(len(want))
		v.Different += int64(len(different))
		v.Keys = append(v.Keys, different[:min(len(different), drillNamed-len(v.Keys))]...)
		clear(want)
		return nil
	}
	for _, it := range items {
		if record.Internal(it.Key) {
			continue
		}
		var r record.Record
		if err := record.Decode(it.Key, it.Value, &r); err != nil {
			return fmt.Errorf("record of %q: %w", it.Key, err)
		}
		want[string(it.Key)] = r
		if len(want) == drillGet {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// differing asks for all keys of want, and returns those whose answer is another.
func (c *reader) differing(want map[string]record.Record) (different []string, err error) {
	if len(want) == 0 {
		return nil, nil
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = c.w.WriteString("get")
	for k := range want {
		_, _ = c.w.WriteString(" " + k)
	}
	_, _ = c.w.WriteString("\r\n")
	if err := c.w.Flush(); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		words := strings.Fields(line)
		if len(words) == 1 && words[0] == "END" {
			break
		}
		if len(words) != 4 || words[0] != "VALUE" {
			return nil, fmt.Errorf("get: %q", line)
		}
		flags, err1 := strconv.ParseUint(words[2], 10, 32)
		size, err2 := strconv.Atoi(words[3])
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		value := make([]byte, size+2)
		if _, err := io.ReadFull(c.r, value); err != nil {
			return nil, err
		}
		r, asked := want[words[1]]
		seen[words[1]] = true
		if !asked || r.Kind != record.Value || uint32(flags) != r.Flags || !bytes.Equal(value[:size], r.Value) {
			different = append(different, words[1])
		}
	}
	for k, r := range want {
		if r.Kind == record.Value && !seen[k] {
			different = append(different, k)
		}
	}
	return different, nil
}
