package discovery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"cloud.google.com/go/compute/metadata"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// gce finds the instances of a label, or of a managed instance group, by Compute Engine's REST API, with the credentials that Google's own tools
// take (GOOGLE_APPLICATION_CREDENTIALS, or the instance's service account).
type gce struct {
	label, value, group, project string
	port                         uint16

	mu     sync.Mutex
	tokens oauth2.TokenSource // once there are
}

const (
	gceForm  = "gce:label=KEY=VALUE or gce:group=NAME, and perhaps port=11213,project=PROJECT"
	gceScope = "https://www.googleapis.com/auth/compute.readonly"
)

func parseGCE(rest string) (Finder, error) {
	set, err := settings(rest, "label", "group", "port", "project")
	if err != nil {
		return nil, fmt.Errorf("%w; write %s", err, gceForm)
	}
	g := &gce{group: set["group"], project: set["project"]}
	if g.port, err = portOf(set); err != nil {
		return nil, err
	}
	label := set["label"]
	if label == "" == (g.group == "") {
		return nil, fmt.Errorf("names no instances, or both ways; write %s", gceForm)
	}
	var ok bool
	if g.label, g.value, ok = strings.Cut(label, "="); label != "" && (!ok || g.label == "" || g.value == "" || strings.ContainsAny(label, " \"()")) {
		return nil, fmt.Errorf("label=%s is not KEY=VALUE; write %s", label, gceForm)
	}
	return g, nil
}

// gceEndpoint is where Compute Engine answers; the variable is gcloud's.
func gceEndpoint() string {
	return strings.TrimSuffix(cmp.Or(os.Getenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"), "https://compute.googleapis.com/compute/v1/"), "/")
}

// load finds out whose instances are meant, and who asks; what has been found once stays.
func (g *gce) load(ctx context.Context) (project string, tokens oauth2.TokenSource, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.project = cmp.Or(g.project, os.Getenv("GOOGLE_CLOUD_PROJECT")); g.project == "" {
		if g.project, err = metadata.ProjectIDWithContext(ctx); err != nil {
			return "", nil, fmt.Errorf("no project: write project=PROJECT, or set GOOGLE_CLOUD_PROJECT (%w)", err)
		}
	}
	if g.tokens == nil {
		// It outlives this call: the context must, too.
		if g.tokens, err = google.DefaultTokenSource(context.WithoutCancel(ctx), gceScope); err != nil {
			return "", nil, err
		}
	}
	return g.project, g.tokens, nil
}

// gceInstances is a page of the aggregated list, as far as it matters.
type gceInstances struct {
	Items map[string]struct {
		Instances []struct {
			Name       string `json:"name"`
			ID         string `json:"id"`
			Status     string `json:"status"`
			Zone       string `json:"zone"`
			Interfaces []struct {
				IP   string `json:"networkIP"`
				IPv6 string `json:"ipv6Address"`
			} `json:"networkInterfaces"`
			Metadata struct {
				Items []struct {
					Key   string `json:"key"`
					Value string `json:"value"`
				} `json:"items"`
			} `json:"metadata"`
		} `json:"instances"`
	} `json:"items"`
	Next        string   `json:"nextPageToken"`
	Unreachable []string `json:"unreachables"`
}

// Peers implements Finder: instances that run, or are about to.
func (g *gce) Peers(ctx context.Context) (peers []Peer, err error) {
	project, tokens, err := g.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("discovery: gce: %w", err)
	}
	query := url.Values{"maxResults": {"500"}, "returnPartialSuccess": {"true"}}
	if g.label != "" {
		query.Set("filter", "labels."+g.label+"="+g.value)
	}
	var unreachable []string
	for range maxPages {
		var answer gceInstances
		at := gceEndpoint() + "/projects/" + url.PathEscape(project) + "/aggregated/instances?" + query.Encode()
		if err := page(ctx, func(ctx context.Context) error { return ask(ctx, tokens, at, &answer) }); err != nil {
			return peers, fmt.Errorf("discovery: gce: %w", err)
		}
		peers = append(peers, peersOf(g.wanted(&answer), g.port)...)
		unreachable = append(unreachable, answer.Unreachable...)
		if answer.Next == "" {
			if len(unreachable) > 0 {
				err = fmt.Errorf("discovery: gce: unreachable: %s", strings.Join(unreachable, ", "))
			}
			return peers, err
		}
		query.Set("pageToken", answer.Next)
	}
	return peers, fmt.Errorf("discovery: gce: more than %d pages", maxPages)
}

// wanted are the instances of a page that count. Who started an instance is not to be asked for: its metadata says so.
func (g *gce) wanted(answer *gceInstances) (all []instance) {
	for _, zone := range answer.Items {
		for _, i := range zone.Instances {
			ours := g.group == ""
			for _, m := range i.Metadata.Items {
				ours = ours || m.Key == "created-by" && strings.HasSuffix(m.Value, "/instanceGroupManagers/"+g.group)
			}
			if !ours || !slices.Contains([]string{"PROVISIONING", "STAGING", "RUNNING"}, i.Status) {
				continue
			}
			found := instance{id: i.ID, zone: path.Base(i.Zone)}
			for _, n := range i.Interfaces {
				found.addrs = append(found.addrs, n.IP, n.IPv6)
			}
			all = append(all, found)
		}
	}
	// Maps have no order; a finder's answers should have one.
	slices.SortFunc(all, func(a, b instance) int { return cmp.Compare(a.id, b.id) })
	return all
}

func ask(ctx context.Context, tokens oauth2.TokenSource, at string, answer *gceInstances) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	token, err := tokens.Token()
	if err != nil {
		return fmt.Errorf("%w: token: %w", errTryAgain, err)
	}
	token.SetAuthHeader(req)
	code, content, err := fetch(http.DefaultClient, req)
	switch {
	case err != nil:
		return err
	case code == http.StatusOK:
		*answer = gceInstances{}
		return json.Unmarshal(content, answer)
	}
	var why struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	_ = json.Unmarshal(content, &why) // another body is told by its code
	err = fmt.Errorf("aggregated list of instances: %d: %s", code, why.Error.Message)
	switch {
	case code == http.StatusForbidden && !strings.Contains(strings.ToLower(why.Error.Message), "rate"):
		return errors.Join(err, errors.New("the service account needs compute.instances.list"))
	case transient(code) || code == http.StatusForbidden:
		return fmt.Errorf("%w: %w", errTryAgain, err)
	}
	return err
}
