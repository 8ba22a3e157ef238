// Package buckettest starts servers that speak S3 and GCS on this machine, for tests. They are built by `make servers`
// from a module of their own (backup/servers), so that none of what they need is needed by Kai.
package buckettest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bucketName is that of the one bucket of each server.
const bucketName = "kai"

// S3 starts versitygw with an empty bucket in a directory, and returns the bucket's URL. The environment of this
// process gets the credentials, until the test ends. Without the server's binary the test is skipped.
func S3(t testing.TB) (url string) {
	bin := binary(t, "versitygw")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, bucketName), 0o700); err != nil {
		t.Fatal(err)
	}
	addr := freePort(t)
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "kai", "AWS_SECRET_ACCESS_KEY": "kaisecret123", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull} {
		t.Setenv(k, v)
	}
	start(t, addr, []string{"ROOT_ACCESS_KEY=kai", "ROOT_SECRET_KEY=kaisecret123"}, bin, "--quiet", "--port", addr, "posix", dir)
	return "s3://" + bucketName + "?region=us-east-1&use_path_style=true&endpoint=http://" + addr
}

// GCS starts fake-gcs-server with an empty bucket in memory, and returns the bucket's URL. STORAGE_EMULATOR_HOST names it until
// the test ends. Without the server's binary the test is skipped.
func GCS(t testing.TB) (url string) {
	bin := binary(t, "fake-gcs-server")
	addr := freePort(t)
	host, port, _ := net.SplitHostPort(addr)
	t.Setenv("STORAGE_EMULATOR_HOST", addr)
	start(t, addr, nil, bin, "-scheme", "http", "-host", host, "-port", port, "-backend", "memory", "-public-host", addr, "-log-level", "error")
	res, err := http.Post("http://"+addr+"/storage/v1/b?project=kai", "application/json", strings.NewReader(`{"name":"`+bucketName+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		t.Fatalf("no bucket: %s %s", res.Status, text)
	}
	return "gs://" + bucketName
}

// binary finds a server in bin, in a directory above this one's.
func binary(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "bin", name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil || dir == filepath.Dir(dir) {
			t.Skipf("no bin/%s: make servers builds it", name)
		}
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs a server until the test ends, and returns when it listens.
func start(t testing.TB, addr string, env []string, bin string, args ...string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() { stop(); <-exited })
	for range 200 {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-exited:
			t.Fatalf("%s has ended: %s", bin, output.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("%s does not listen at %s", bin, addr)
}
