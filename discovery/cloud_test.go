package discovery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kai/discovery/cloudtest"
)

// fakeAWS is the metadata service of an instance (IMDSv2 only), and EC2, on loopback. It checks what the real ones do.
type fakeAWS struct {
	t     *testing.T
	mu    sync.Mutex
	calls []string
	// throttle so many calls of EC2 first; refuse all: with that code and body.
	throttle, code int
	body           string
}

const (
	awsKey, awsSecret, awsSession = "AKIAFAKE", "secret", "session"
	imdsToken                     = "a-token"
)

func newFakeAWS(t *testing.T) *fakeAWS {
	f := &fakeAWS{t: t}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.URL, "AWS_ENDPOINT_URL_EC2": server.URL, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
		"AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": t.TempDir() + "/none", "AWS_SHARED_CREDENTIALS_FILE": t.TempDir() + "/none",
		"AWS_EC2_METADATA_DISABLED": "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "",
	} {
		t.Setenv(name, value)
	}
	return f
}

func (f *fakeAWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, r.Method+" "+r.URL.Path)
	if r.URL.Path == "/latest/api/token" {
		if r.Method != http.MethodPut || r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		fmt.Fprint(w, imdsToken)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/latest/") {
		if r.Header.Get("X-Aws-Ec2-Metadata-Token") != imdsToken {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/latest/meta-data/iam/security-credentials/":
			fmt.Fprint(w, "role")
		case "/latest/meta-data/iam/security-credentials/role":
			fmt.Fprintf(w, `{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":%q,"SecretAccessKey":%q,"Token":%q,"Expiration":%q}`,
				awsKey, awsSecret, awsSession, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		case "/latest/dynamic/instance-identity/document":
			fmt.Fprint(w, `{"region":"xx-test-1"}`)
		case "/latest/meta-data/instance-id":
			fmt.Fprint(w, "i-1")
		case "/latest/meta-data/placement/availability-zone":
			if f.throttle > 0 {
				f.throttle--
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			fmt.Fprint(w, "xx-test-1a")
		default:
			w.WriteHeader(http.StatusNotFound)
		}
		return
	}
	f.describe(w, r)
}

// describe is EC2's DescribeInstances: two pages, one instance without an address yet, one with IPv6 only.
func (f *fakeAWS) describe(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if why := cloudtest.Unsigned(r, body, "ec2"); why != "" {
		f.t.Error(why)
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if f.throttle > 0 {
		f.throttle--
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>slow down</Message></Error></Errors></Response>`)
		return
	}
	if f.code != 0 {
		w.WriteHeader(f.code)
		fmt.Fprint(w, f.body)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err := r.ParseForm(); err != nil || r.PostForm.Get("Action") != "DescribeInstances" || r.PostForm.Get("Version") != "2016-11-15" {
		f.t.Errorf("form %v, %v", r.PostForm, err)
	}
	if got := r.PostForm["Filter.2.Value.1"]; r.PostForm.Get("Filter.2.Name") != "instance-state-name" || !slices.Equal(got, []string{"pending"}) || r.PostForm.Get("Filter.2.Value.2") != "running" {
		f.t.Errorf("filters %v", r.PostForm)
	}
	item := func(id, ip, ip6, zone string) string {
		return fmt.Sprintf("<item><instancesSet><item><instanceId>%s</instanceId><privateIpAddress>%s</privateIpAddress><ipv6Address>%s</ipv6Address><placement><availabilityZone>%s</availabilityZone></placement></item></instancesSet></item>", id, ip, ip6, zone)
	}
	switch tag := r.PostForm.Get("Filter.1.Name") + "=" + r.PostForm.Get("Filter.1.Value.1") + " " + r.PostForm.Get("NextToken"); tag {
	case "tag:kai=a b ":
		fmt.Fprintf(w, "<DescribeInstancesResponse><reservationSet>%s%s</reservationSet><nextToken>more</nextToken></DescribeInstancesResponse>", item("i-1", "10.0.0.1", "", "xx-test-1a"), item("i-2", "", "", "xx-test-1a"))
	case "tag:kai=a b more":
		fmt.Fprintf(w, "<DescribeInstancesResponse><reservationSet>%s</reservationSet></DescribeInstancesResponse>", item("i-3", "", "fd00::3", "xx-test-1b"))
	case "tag:aws:autoscaling:groupName=group ":
		fmt.Fprintf(w, "<DescribeInstancesResponse><reservationSet>%s</reservationSet></DescribeInstancesResponse>", item("i-9", "10.0.0.9", "", "xx-test-1c"))
	default:
		f.t.Errorf("asked for %q", tag)
	}
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
	f := newFakeAWS(t)
	f.throttle = 2
	if got, err := found(t, "aws:tag=kai=a%20b,port=7"); err != nil || got != "i-1@xx-test-1a=10.0.0.1:7 i-3@xx-test-1b=[fd00::3]:7" {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := found(t, "aws:asg=group"); err != nil || got != "i-9@xx-test-1c=10.0.0.9:11213" {
		t.Errorf("%s, %v", got, err)
	}
	f.code, f.body = http.StatusForbidden, `<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>`
	before := len(f.calls)
	if _, err := found(t, "aws:asg=group,region=xx-test-1"); err == nil || !strings.Contains(err.Error(), "ec2:DescribeInstances") {
		t.Error(err)
	}
	asked := 0
	for _, c := range f.calls[before:] {
		if c == "POST /" {
			asked++
		}
	}
	if asked != 1 {
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
		f := newFakeAWS(t)
		f.throttle = 1
		if p, err := Here(t.Context(), "dns:kai:1;aws:asg=group"); err != nil || p != (Place{"i-1", "xx-test-1a"}) {
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
		if p, err := Here(t.Context(), "gce:group=kai"); err != nil || p != (Place{"1", "a"}) {
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
	newFakeAWS(t) // what else of the environment is to be unset
	a := cloudtest.NewAWS()
	defer a.Close()
	for _, e := range a.Launch("i-1", "10.0.0.1", "xx-test-1a") {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
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
	if faults := a.Faults(); len(faults) > 0 {
		t.Error(faults)
	}
	if err := d.Complete(t.Context()); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("nothing waits any more: %v", err)
	}
	by := time.Now().Add(2 * time.Minute).Truncate(time.Second)
	a.Interrupt("i-1", by)
	if d = AwaitDeparture(t.Context(), "aws:asg=kai", report); d == nil || !d.By.Equal(by) || !strings.Contains(d.Why, "spot") {
		t.Errorf("%+v", d)
	}
}
