package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A node learns its zone from the cloud that it finds its peers in, remembers it, and does not start without.
func TestLearnZone(t *testing.T) {
	zone := "projects/1/zones/here-b"
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		switch r.URL.Path {
		case "/computeMetadata/v1/instance/id":
			fmt.Fprint(w, "4711")
		case "/computeMetadata/v1/instance/zone":
			fmt.Fprint(w, zone)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer cloud.Close()
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(cloud.URL, "http://"))
	start := func(dir string, env ...string) (string, error) {
		set := map[string]string{"KAI_DATA_DIR": dir, "KAI_DISCOVERY": "gce:label=a=b"}
		for _, e := range env {
			name, value, _ := strings.Cut(e, "=")
			set[name] = value
		}
		cfg, err := Load(set)
		if err != nil {
			t.Fatal(err)
		}
		n := &node{cfg: cfg, log: slog.New(slog.DiscardHandler)}
		if n.identity, err = openIdentity(dir); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = n.learnZone(ctx)
		return n.cfg.Zone, err
	}
	dir := t.TempDir()
	if got, err := start(dir); err != nil || got != "here-b" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := start(dir, "KAI_ZONE=mine"); err != nil || got != "mine" {
		t.Errorf("what is set counts: %q, %v", got, err)
	}
	if got, err := start(t.TempDir(), "KAI_DISCOVERY="); err != nil || got != "" {
		t.Errorf("without a cloud: %q, %v", got, err)
	}
	zone = "projects/1/zones/not a name"
	if got, err := start(t.TempDir()); err == nil {
		t.Errorf("a zone called %q", got)
	}
	cloud.Close()
	if got, err := start(dir); err != nil || got != "here-b" {
		t.Errorf("the disk remembers: %q, %v", got, err)
	}
	if _, err := start(t.TempDir()); err == nil || !strings.Contains(err.Error(), "set KAI_ZONE") {
		t.Errorf("a new node that does not know where it is: %v", err)
	}
}
