package discovery

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
)

// ec2 finds the instances of a tag, or of an autoscaling group, by EC2's query API. It is signed with the SDK's signer, with credentials, region and
// endpoint as the SDK takes them; the SDK's own client of EC2 would cost ten minutes of compiling for this one call.
type ec2 struct {
	tag, value, region string
	port               uint16

	mu  sync.Mutex
	cfg *aws.Config // once it could be loaded
}

const awsForm = "aws:tag=KEY=VALUE or aws:asg=NAME, and perhaps port=11213,region=REGION"

func parseAWS(rest string) (Finder, error) {
	set, err := settings(rest, "tag", "asg", "port", "region")
	if err != nil {
		return nil, fmt.Errorf("%w; write %s", err, awsForm)
	}
	e := &ec2{region: set["region"]}
	if e.port, err = portOf(set); err != nil {
		return nil, err
	}
	tag, asg := set["tag"], set["asg"]
	switch key, value, ok := strings.Cut(tag, "="); {
	case tag == "" == (asg == ""):
		return nil, fmt.Errorf("names no instances, or both ways; write %s", awsForm)
	case asg != "":
		e.tag, e.value = "aws:autoscaling:groupName", asg // EC2 Auto Scaling puts it on what it starts
	case !ok || key == "" || value == "":
		return nil, fmt.Errorf("tag=%s is not KEY=VALUE; write %s", tag, awsForm)
	default:
		e.tag, e.value = key, value
	}
	return e, nil
}

// load reads credentials' whereabouts and region; what has been found once stays.
func (e *ec2) load(ctx context.Context) (aws.Config, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cfg != nil {
		return *e.cfg, nil
	}
	// Without it there is no client at all, but where AWS_CA_BUNDLE is set: the SDK leaves that to its services.
	cfg, err := config.LoadDefaultConfig(ctx, config.WithEC2IMDSRegion(), config.WithHTTPClient(awshttp.NewBuildableClient()))
	if err != nil {
		return cfg, err
	}
	if cfg.Region = cmp.Or(e.region, cfg.Region); cfg.Region == "" {
		return cfg, errors.New("no region: set AWS_REGION, or write region=REGION")
	}
	e.cfg = &cfg
	return cfg, nil
}

// awsEndpoint is where a service answers.
func awsEndpoint(service, region string) string {
	for _, name := range []string{"AWS_ENDPOINT_URL_" + awsVariables[service], "AWS_ENDPOINT_URL"} {
		if u := os.Getenv(name); u != "" {
			return strings.TrimSuffix(u, "/") + "/"
		}
	}
	domain := "amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		domain = "amazonaws.com.cn"
	}
	return "https://" + service + "." + region + "." + domain + "/"
}

// awsVariables are the ends of the SDK's variables for a service's endpoint.
var awsVariables = map[string]string{"ec2": "EC2", "autoscaling": "AUTO_SCALING"}

// ec2Instances is the answer to DescribeInstances, as far as it matters.
type ec2Instances struct {
	Reservations []struct {
		Instances []struct {
			ID      string `xml:"instanceId"`
			Private string `xml:"privateIpAddress"`
			IPv6    string `xml:"ipv6Address"`
			Zone    string `xml:"placement>availabilityZone"`
		} `xml:"instancesSet>item"`
	} `xml:"reservationSet>item"`
	Next string `xml:"nextToken"`
}

// awsError is why a service refused; where that stands differs.
type awsError struct {
	Code    string `xml:"Error>Code"`
	Message string `xml:"Error>Message"`
	EC2     struct {
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
	} `xml:"Errors>Error"`
}

// Peers implements Finder: instances that run, or are about to.
func (e *ec2) Peers(ctx context.Context) (peers []Peer, err error) {
	cfg, err := e.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("discovery: aws: %w", err)
	}
	form := url.Values{
		"Action": {"DescribeInstances"}, "Version": {"2016-11-15"}, "MaxResults": {"500"},
		"Filter.1.Name": {"tag:" + e.tag}, "Filter.1.Value.1": {e.value},
		"Filter.2.Name": {"instance-state-name"}, "Filter.2.Value.1": {"pending"}, "Filter.2.Value.2": {"running"},
	}
	for range maxPages {
		var answer ec2Instances
		if err := page(ctx, func(ctx context.Context) error {
			answer = ec2Instances{}
			return query(ctx, cfg, "ec2", form, &answer)
		}); err != nil {
			return peers, fmt.Errorf("discovery: aws: %w", err)
		}
		var all []instance
		for _, r := range answer.Reservations {
			for _, i := range r.Instances {
				all = append(all, instance{i.ID, i.Zone, []string{i.Private, i.IPv6}})
			}
		}
		peers = append(peers, peersOf(all, e.port)...)
		if answer.Next == "" {
			return peers, nil
		}
		form.Set("NextToken", answer.Next)
	}
	return peers, fmt.Errorf("discovery: aws: more than %d pages", maxPages)
}

// query asks a service by its query API, and reads its answer, if that is wanted.
func query(ctx context.Context, cfg aws.Config, service string, form url.Values, answer any) error {
	body := form.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, awsEndpoint(service, cfg.Region), strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	credentials, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return fmt.Errorf("%w: credentials: %w", errTryAgain, err)
	}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(ctx, credentials, req, hex.EncodeToString(sum[:]), service, cfg.Region, time.Now()); err != nil {
		return err
	}
	code, content, err := fetch(cfg.HTTPClient, req)
	switch {
	case err != nil:
		return err
	case code == http.StatusOK && answer == nil:
		return nil
	case code == http.StatusOK:
		return xml.Unmarshal(content, answer)
	}
	var why awsError
	_ = xml.Unmarshal(content, &why) // another body is told by its code
	kind := cmp.Or(why.Code, why.EC2.Code)
	err = fmt.Errorf("%s: %d %s: %s", form.Get("Action"), code, kind, cmp.Or(why.Message, why.EC2.Message))
	switch kind {
	case "UnauthorizedOperation", "AccessDenied":
		return fmt.Errorf("%w; the instance's role needs %s:%s", err, service, form.Get("Action"))
	case "RequestLimitExceeded", "Throttling":
		return fmt.Errorf("%w: %w", errTryAgain, err)
	}
	if transient(code) {
		return fmt.Errorf("%w: %w", errTryAgain, err)
	}
	return err
}
