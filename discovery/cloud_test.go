package discovery

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"kai/discovery/cloudtest"
)

// inAWS has the test run on the first of a group's instances. Faults of what was asked fail it.
func inAWS(t *testing.T) *cloudtest.AWS {
	a := cloudtest.NewAWS()
	t.Cleanup(func() {
		a.Close()
		if faults := a.Faults(); len(faults) > 0 {
			t.Errorf("asked wrongly: %q", faults)
		}
	})
	for _, e := range a.Launch("i-1", "10.0.0.1", "xx-test-1a") {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	return a
}

func found(t *testing.T, spec string) (string, error) {
	t.Helper()
	f, err := Parse(spec)
	if err != nil {
		t.Fatal(err)
	}
	all, err := f.Peers(t.Context())
	var text []string
	for _, p := range all {
		text = append(text, p.ID+"@"+p.Zone+"="+p.Addr)
	}
	return strings.Join(text, " "), err
}

func TestAWS(t *testing.T) {
	a := inAWS(t)
	a.Launch("i-2", "", "xx-test-1a") // it has no address yet
	a.Launch("i-3", "fd00::3", "xx-test-1b")
	a.Throttle(2)
	if got, err := found(t, "aws:tag=kai=a%20b,port=7"); err != nil || got != "i-1@xx-test-1a=10.0.0.1:7 i-3@xx-test-1b=[fd00::3]:7" {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := found(t, "aws:asg=kai"); err != nil || got != "i-1@xx-test-1a=10.0.0.1:11213 i-3@xx-test-1b=[fd00::3]:11213" {
		t.Errorf("%s, %v", got, err)
	}
	a.Deny("DescribeInstances")
	before := a.Calls("DescribeInstances")
	if _, err := found(t, "aws:asg=kai,region=xx-test-1"); err == nil || !strings.Contains(err.Error(), "ec2:DescribeInstances") {
		t.Error(err)
	}
	if asked := a.Calls("DescribeInstances") - before; asked != 1 {
		t.Errorf("asked %d times for what is forbidden", asked)
	}
}

func TestPreemption(t *testing.T) {
	f := newFakeGCE(t)
	quiet, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if d := AwaitDeparture(quiet, "gce:group=kai", func(err error) { t.Error(err) }); d != nil {
		t.Errorf("%+v", d)
	}
	f.mu.Lock()
	f.preempted = true
	f.mu.Unlock()
	d := AwaitDeparture(t.Context(), "gce:group=kai", func(err error) { t.Error(err) })
	if d == nil || time.Until(d.By) > 30*time.Second {
		t.Fatalf("%+v", d)
	}
	d.Hold(t.Context(), func(err error) { t.Error(err) })
	if err := d.Complete(t.Context()); err != nil {
		t.Error(err)
	}
	none, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if d := AwaitDeparture(none, "static:127.0.0.1:1", func(err error) { t.Error(err) }); d != nil {
		t.Errorf("%+v without a cloud", d)
	}
}

// fakeGCE is the metadata server of an instance, and Compute Engine, on loopback.
type fakeGCE struct {
	t         *testing.T
	mu        sync.Mutex
	throttle  int
	partial   bool
	preempted bool
}

func newFakeGCE(t *testing.T) *fakeGCE {
	f := &fakeGCE{t: t}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(server.URL, "http://"))
	t.Setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", server.URL+"/compute/v1/")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("GOOGLE_CLOUD_PROJECT", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("CLOUDSDK_CONFIG", t.TempDir())
	return f
}

func (f *fakeGCE) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Metadata-Flavor", "Google")
	if strings.HasPrefix(r.URL.Path, "/computeMetadata/") {
		if r.Header.Get("Metadata-Flavor") != "Google" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		switch r.URL.Path {
		case "/computeMetadata/v1/project/project-id":
			fmt.Fprint(w, "ours")
		case "/computeMetadata/v1/instance/preempted":
			fmt.Fprint(w, map[bool]string{true: "TRUE", false: "FALSE"}[f.preempted])
		case "/computeMetadata/v1/instance/id":
			fmt.Fprint(w, "1")
		case "/computeMetadata/v1/instance/zone":
			fmt.Fprint(w, "projects/1/zones/a")
		case "/computeMetadata/v1/instance/service-accounts/default/token":
			fmt.Fprint(w, `{"access_token":"a-token","expires_in":3600,"token_type":"Bearer"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
		return
	}
	if r.URL.Path != "/compute/v1/projects/ours/aggregated/instances" || r.Header.Get("Authorization") != "Bearer a-token" {
		f.t.Errorf("%s with %q", r.URL.Path, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if f.throttle > 0 {
		f.throttle--
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error":{"message":"Rate Limit Exceeded"}}`)
		return
	}
	item := func(id, status, ip, zone, by string) string {
		return fmt.Sprintf(`{"id":%q,"status":%q,"zone":"https://x/zones/%s","networkInterfaces":[{"networkIP":%q}],"metadata":{"items":[{"key":"created-by","value":%q}]}}`, id, status, zone, ip, by)
	}
	const ours, theirs = "projects/1/regions/r/instanceGroupManagers/kai", "projects/1/regions/r/instanceGroupManagers/not-kai"
	switch q := r.URL.Query(); q.Get("filter") + " " + q.Get("pageToken") {
	case "labels.cluster=kai ", " ":
		fmt.Fprintf(w, `{"items":{"zones/b":{"instances":[%s]},"zones/a":{"instances":[%s,%s]},"zones/c":{}},"nextPageToken":"more"}`,
			item("2", "RUNNING", "10.0.0.2", "b", ours), item("1", "STAGING", "10.0.0.1", "a", ours), item("3", "TERMINATED", "10.0.0.3", "a", ours))
	case "labels.cluster=kai more", " more":
		un := ""
		if f.partial {
			un = `,"unreachables":["zones/d"]`
		}
		fmt.Fprintf(w, `{"items":{"zones/a":{"instances":[%s]}}%s}`, item("4", "RUNNING", "10.0.0.4", "a", theirs), un)
	default:
		f.t.Errorf("asked for %v", q)
	}
}

func TestGCE(t *testing.T) {
	f := newFakeGCE(t)
	f.throttle = 1
	if got, err := found(t, "gce:label=cluster=kai,port=7"); err != nil || got != "1@a=10.0.0.1:7 2@b=10.0.0.2:7 4@a=10.0.0.4:7" {
		t.Errorf("%s, %v", got, err)
	}
	f.partial = true
	if got, err := found(t, "gce:group=kai"); err == nil || !strings.Contains(err.Error(), "zones/d") || got != "1@a=10.0.0.1:11213 2@b=10.0.0.2:11213" {
		t.Errorf("%s, %v", got, err)
	}
}

func TestHere(t *testing.T) {
	if p, err := Here(t.Context(), "static:127.0.0.1:1 dns:kai:11213"); err != nil || p != (Place{}) {
		t.Errorf("%+v, %v: there is no cloud", p, err)
	}
	t.Run("aws", func(t *testing.T) {
		inAWS(t).Throttle(1)
		if p, err := Here(t.Context(), "dns:kai:1;aws:asg=group"); err != nil || p != (Place{"i-1", "xx-test-1a", "aws"}) {
			t.Errorf("%+v, %v", p, err)
		}
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if p, err := Here(ctx, "aws:asg=group"); err == nil || p != (Place{}) {
			t.Errorf("%+v, %v: nobody answers", p, err)
		}
	})
	t.Run("gce", func(t *testing.T) {
		newFakeGCE(t)
		if p, err := Here(t.Context(), "gce:group=kai"); err != nil || p != (Place{"1", "a", "gcp"}) {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

func TestCloudForms(t *testing.T) {
	for spec, hint := range map[string]string{
		"aws:":                     "aws:tag=KEY=VALUE",
		"aws:tag=kai":              "not KEY=VALUE",
		"aws:tag=a=b,asg=c":        "both ways",
		"aws:asg=a,port=0":         "1 to 65535",
		"aws:asg=a,zone=b":         "unknown \"zone\"",
		"aws:asg=a,asg=b":          "twice",
		"aws:asg":                  "not name=value",
		"gce:label=kai":            "not KEY=VALUE",
		"gce:group=a,label=b=c":    "both ways",
		"gce:label=a=b%20OR%20c=d": "not KEY=VALUE",
	} {
		if _, err := Parse(spec); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v; want a hint of %q", spec, err, hint)
		}
	}
}

// An instance hears of its end, has its group wait, and lets go.
func TestDeparture(t *testing.T) {
	a := inAWS(t)
	report := func(err error) { t.Error(err) }
	quiet, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if d := AwaitDeparture(quiet, "aws:asg=kai", report); d != nil {
		t.Fatalf("nobody has given notice: %+v", d)
	}
	a.ScaleIn("i-1")
	d := AwaitDeparture(t.Context(), "dns:kai:1 aws:asg=kai", report)
	if d == nil || !d.By.IsZero() {
		t.Fatalf("%+v", d)
	}
	ctx, release := context.WithCancel(t.Context())
	held := make(chan struct{})
	go func() { d.Hold(ctx, report); close(held) }()
	for beats := 0; beats == 0; time.Sleep(10 * time.Millisecond) {
		beats, _ = a.Lifecycle("i-1")
	}
	release()
	<-held
	if _, done := a.Lifecycle("i-1"); !done.IsZero() {
		t.Error("let go while it had things to do")
	}
	if err := d.Complete(t.Context()); err != nil {
		t.Error(err)
	}
	if _, done := a.Lifecycle("i-1"); done.IsZero() {
		t.Error("its group waits on")
	}
	a.Deny("CompleteLifecycleAction")
	if err := d.Complete(t.Context()); err == nil || !strings.Contains(err.Error(), "autoscaling:CompleteLifecycleAction") || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("what it may not say: %v", err)
	}
	by := time.Now().Add(2 * time.Minute).Truncate(time.Second)
	a.Interrupt("i-1", by)
	if d = AwaitDeparture(t.Context(), "aws:asg=kai", report); d == nil || !d.By.Equal(by) || !strings.Contains(d.Why, "spot") {
		t.Errorf("%+v", d)
	}
}

func TestRegion(t *testing.T) {
	for _, tt := range []struct{ cloud, zone, region string }{
		{"aws", "us-east-1a", "us-east-1"}, {"aws", "us-gov-west-1b", "us-gov-west-1"}, {"aws", "us-west-2-lax-1a", "us-west-2"}, {"aws", "rack7", ""},
		{"gcp", "europe-west1-b", "europe-west1"}, {"gcp", "a", ""}, {"", "us-east-1a", ""},
	} {
		if got := (Place{Cloud: tt.cloud, Zone: tt.zone}).Region(); got != tt.region {
			t.Errorf("%s %s is of %q, not %q", tt.cloud, tt.zone, got, tt.region)
		}
	}
}
