// Package cloudtest stands in for clouds in tests, on loopback: for the metadata services of machines, and for the calls that Kai makes of the clouds' APIs. What
// it is asked wrongly, it remembers.
package cloudtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// AWS is EC2 and its autoscaling, with one group and the metadata service of each of its instances (IMDSv2 only). Safe for concurrent use.
type AWS struct {
	// Group is the group's name, Hook that of its one lifecycle hook for instances that end, Beat its timeout in seconds.
	Group, Hook string
	Beat        int
	// Tag is what all instances have beside that of their group, as key=value.
	Tag string
	// PageSize is how many instances a page of DescribeInstances has.
	PageSize int

	ip        string
	api       *httptest.Server
	mu        sync.Mutex
	instances []*instance
	outage    bool
	throttle  int
	denied    string // an action
	calls     map[string]int
	faults    []string
}

type instance struct {
	id, ip, zone string
	state        string // target-lifecycle-state
	spot         string // instance-action
	beats        int
	completed    time.Time
	metadata     *httptest.Server
}

const (
	region                     = "xx-test-1"
	accessKey, secret, session = "AKIAFAKE", "secret", "session"
	token                      = "a-token"
)

// NewAWS starts one on loopback; Close ends it.
func NewAWS() *AWS { return NewAWSAt("127.0.0.1") }

// NewAWSAt is NewAWS on an address of this machine.
func NewAWSAt(ip string) *AWS {
	a := &AWS{Group: "kai", Hook: "drain", Beat: 30, Tag: "kai=a b", PageSize: 2, ip: ip, calls: map[string]int{}}
	a.api = a.serve(a.call)
	return a
}

// serve starts a server on any port; it panics if there is none, as httptest does.
func (a *AWS) serve(f http.HandlerFunc) *httptest.Server {
	l, err := net.Listen("tcp", net.JoinHostPort(a.ip, "0"))
	if err != nil {
		panic(fmt.Sprintf("cloudtest: %v", err))
	}
	s := httptest.NewUnstartedServer(f)
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	return s
}

// Close ends all servers.
func (a *AWS) Close() {
	a.api.Close()
	for _, i := range a.instances {
		i.metadata.Close()
	}
}

// Launch adds an instance to the group, and returns the environment of its processes. An address may be missing, or be one of IPv6.
func (a *AWS) Launch(id, ip, zone string) (env []string) {
	i := &instance{id: id, ip: ip, zone: zone, state: "InService"}
	i.metadata = a.serve(func(w http.ResponseWriter, r *http.Request) { a.tell(i, w, r) })
	a.mu.Lock()
	defer a.mu.Unlock()
	a.instances = append(a.instances, i)
	env = []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + i.metadata.URL, "AWS_ENDPOINT_URL_EC2=" + a.api.URL, "AWS_ENDPOINT_URL_AUTO_SCALING=" + a.api.URL,
		"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent"}
	// What else the machine of the test may say of itself.
	for _, name := range []string{"ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "DEFAULT_REGION", "PROFILE", "EC2_METADATA_DISABLED", "CA_BUNDLE",
		"CONTAINER_CREDENTIALS_RELATIVE_URI", "CONTAINER_CREDENTIALS_FULL_URI", "WEB_IDENTITY_TOKEN_FILE"} {
		env = append(env, "AWS_"+name+"=")
	}
	return env
}

func (a *AWS) find(id string) *instance {
	for _, i := range a.instances {
		if i.id == id {
			return i
		}
	}
	panic("cloudtest: no instance " + id)
}

// ScaleIn has the group end an instance: it waits for its hook.
func (a *AWS) ScaleIn(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.find(id).state = "Terminated"
}

// Interrupt gives notice that an instance's spot capacity is taken back.
func (a *AWS) Interrupt(id string, by time.Time) {
	content, _ := json.Marshal(map[string]any{"action": "terminate", "time": by.UTC().Format(time.RFC3339)})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.find(id).spot = string(content)
}

// Terminate takes an instance from the group's list.
func (a *AWS) Terminate(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.instances = slices.DeleteFunc(a.instances, func(i *instance) bool { return i.id == id })
}

// Outage has the APIs fail, or work again; metadata services are not concerned.
func (a *AWS) Outage(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.outage = on
}

// Throttle has so many of the next calls fail, of the APIs and for zones, for being too many.
func (a *AWS) Throttle(calls int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.throttle = calls
}

// Deny has the role of the instances lack the permission for an action.
func (a *AWS) Deny(action string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.denied = action
}

// Calls is how often an action was asked for.
func (a *AWS) Calls(action string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[action]
}

// Lifecycle is what an instance has said to its group's hook: heartbeats, and when it was done (zero: not yet).
func (a *AWS) Lifecycle(id string) (beats int, completed time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.find(id)
	return i.beats, i.completed
}

// Faults are the calls that the real services would not have taken.
func (a *AWS) Faults() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.faults)
}

// tell is an instance's metadata service.
func (a *AWS) tell(i *instance, w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.URL.Path == "/latest/api/token" {
		if r.Method != http.MethodPut || r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		fmt.Fprint(w, token)
		return
	}
	if r.Header.Get("X-Aws-Ec2-Metadata-Token") != token {
		a.faults = append(a.faults, r.URL.Path+" without a token")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if strings.HasSuffix(r.URL.Path, "availability-zone") && a.throttle > 0 {
		a.throttle--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	answer := map[string]string{
		"/latest/meta-data/instance-id":                        i.id,
		"/latest/meta-data/placement/availability-zone":        i.zone,
		"/latest/meta-data/autoscaling/target-lifecycle-state": i.state,
		"/latest/meta-data/spot/instance-action":               i.spot,
		"/latest/meta-data/iam/security-credentials/":          "role",
		"/latest/dynamic/instance-identity/document":           `{"region":"` + region + `"}`,
		"/latest/meta-data/iam/security-credentials/role": fmt.Sprintf(`{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":%q,"SecretAccessKey":%q,"Token":%q,"Expiration":%q}`,
			accessKey, secret, session, time.Now().Add(time.Hour).UTC().Format(time.RFC3339)),
	}[r.URL.Path]
	if answer == "" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	fmt.Fprint(w, answer)
}

// call is EC2's and autoscaling's query API.
func (a *AWS) call(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.outage {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	refuse := func(format string, args ...any) {
		why := fmt.Sprintf(format, args...)
		a.faults = append(a.faults, why)
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "<ErrorResponse><Error><Code>ValidationError</Code><Message>%s</Message></Error></ErrorResponse>", why)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err := r.ParseForm(); err != nil {
		refuse("form: %v", err)
		return
	}
	form := r.PostForm
	service, version := "autoscaling", "2011-01-01"
	if form.Get("Action") == "DescribeInstances" {
		service, version = "ec2", "2016-11-15"
	}
	a.calls[form.Get("Action")]++
	if a.throttle > 0 {
		a.throttle--
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>slow down</Message></Error></Errors></Response>")
		return
	}
	if form.Get("Action") == a.denied {
		w.WriteHeader(http.StatusForbidden)
		if service == "ec2" {
			fmt.Fprint(w, "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>")
		} else {
			fmt.Fprint(w, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>")
		}
		return
	}
	if why := unsigned(r, body, service); why != "" {
		refuse("%s: %s", form.Get("Action"), why)
		return
	}
	if form.Get("Version") != version {
		refuse("version %q of %s", form.Get("Version"), service)
		return
	}
	switch action := form.Get("Action"); action {
	case "DescribeInstances":
		if form.Get("Filter.2.Name") != "instance-state-name" || form.Get("Filter.2.Value.1") != "pending" || form.Get("Filter.2.Value.2") != "running" {
			refuse("filters %v", form)
			return
		}
		a.describe(w, form.Get("Filter.1.Name")+"="+form.Get("Filter.1.Value.1"), form.Get("NextToken"), refuse)
	case "DescribeAutoScalingInstances":
		fmt.Fprintf(w, "<R><DescribeAutoScalingInstancesResult><AutoScalingInstances><member><AutoScalingGroupName>%s</AutoScalingGroupName></member></AutoScalingInstances></DescribeAutoScalingInstancesResult></R>", a.Group)
	case "DescribeLifecycleHooks":
		hook := func(name, transition string) string {
			return fmt.Sprintf("<member><LifecycleHookName>%s</LifecycleHookName><LifecycleTransition>autoscaling:EC2_INSTANCE_%s</LifecycleTransition><HeartbeatTimeout>%d</HeartbeatTimeout></member>", name, transition, a.Beat)
		}
		fmt.Fprintf(w, "<R><DescribeLifecycleHooksResult><LifecycleHooks>%s%s</LifecycleHooks></DescribeLifecycleHooksResult></R>", hook("launch", "LAUNCHING"), hook(a.Hook, "TERMINATING"))
	case "RecordLifecycleActionHeartbeat", "CompleteLifecycleAction":
		n := slices.IndexFunc(a.instances, func(i *instance) bool { return i.id == form.Get("InstanceId") })
		if n < 0 || a.instances[n].state != "Terminated" || !a.instances[n].completed.IsZero() || form.Get("AutoScalingGroupName") != a.Group || form.Get("LifecycleHookName") != a.Hook {
			refuse("%s: no active lifecycle action of %v", action, form)
			return
		}
		if action == "RecordLifecycleActionHeartbeat" {
			a.instances[n].beats++
		} else if form.Get("LifecycleActionResult") != "CONTINUE" {
			refuse("result %q", form.Get("LifecycleActionResult"))
		} else {
			a.instances[n].completed = time.Now()
		}
	default:
		refuse("action %q", action)
	}
}

func (a *AWS) describe(w http.ResponseWriter, filter, from string, refuse func(string, ...any)) {
	if filter != "tag:aws:autoscaling:groupName="+a.Group && filter != "tag:"+a.Tag {
		refuse("filter %s", filter)
		return
	}
	first := 0
	if _, err := fmt.Sscanf(from, "from-%d", &first); from != "" && err != nil || first > len(a.instances) {
		refuse("NextToken %q", from)
		return
	}
	end := min(first+a.PageSize, len(a.instances))
	var items strings.Builder
	for _, i := range a.instances[first:end] {
		address := "privateIpAddress"
		if strings.Contains(i.ip, ":") {
			address = "ipv6Address"
		}
		fmt.Fprintf(&items, "<item><instancesSet><item><instanceId>%s</instanceId><%s>%s</%s><placement><availabilityZone>%s</availabilityZone></placement></item></instancesSet></item>", i.id, address, i.ip, address, i.zone)
	}
	next := ""
	if end < len(a.instances) {
		next = fmt.Sprintf("<nextToken>from-%d</nextToken>", end)
	}
	fmt.Fprintf(w, "<DescribeInstancesResponse><reservationSet>%s</reservationSet>%s</DescribeInstancesResponse>", items.String(), next)
}

// unsigned says what is wrong with the signature of a request with that body; nothing if it is right.
func unsigned(r *http.Request, body []byte, service string) string {
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > time.Minute {
		return "signed at " + r.Header.Get("X-Amz-Date")
	}
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.String(), bytes.NewReader(body))
	if err != nil {
		return err.Error()
	}
	again.Header.Set("Content-Type", r.Header.Get("Content-Type"))
	sum := sha256.Sum256(body)
	credentials := aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secret, SessionToken: session}
	if err := v4.NewSigner().SignHTTP(r.Context(), credentials, again, hex.EncodeToString(sum[:]), service, region, at); err != nil {
		return err.Error()
	}
	if r.Header.Get("Authorization") != again.Header.Get("Authorization") || r.Header.Get("X-Amz-Security-Token") != session {
		return fmt.Sprintf("signature %q, not %q", r.Header.Get("Authorization"), again.Header.Get("Authorization"))
	}
	return ""
}
