package discovery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cloud.google.com/go/compute/metadata"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// Departure is a cloud's notice that this machine is to end.
type Departure struct {
	// Why, in words.
	Why string
	// By is when the machine ends at the latest; zero: the notice does not say.
	By time.Time

	group *asg // that waits for this machine; nil: none does
}

// LookEvery is how often the metadata service is asked for notices.
const LookEvery = 5 * time.Second

// AwaitDeparture returns the first notice that this machine is to end: of EC2 that spot capacity is taken back, or that its autoscaling group ends it; of Compute
// Engine that it is preempted. It asks the metadata service of the first cloud that a specification names; without one it only waits. An error of that
// service goes to report, once until it answers again. It blocks until there is a notice, or until ctx ends: then it returns nil.
func AwaitDeparture(ctx context.Context, spec string, report func(error)) *Departure {
	look := func(context.Context) (*Departure, error) { return nil, nil }
	for _, one := range split(spec) {
		scheme, rest, _ := strings.Cut(one, ":")
		if scheme == "aws" {
			e := &ec2{}
			if f, err := parseAWS(rest); err == nil {
				e = f.(*ec2)
			}
			look = e.departure
			break
		} else if scheme == "gce" {
			look = preempted
			break
		}
	}
	failed := false
	tick := time.NewTicker(LookEvery)
	defer tick.Stop()
	for ; ctx.Err() == nil; waitFor(ctx, tick) {
		one, cancel := context.WithTimeout(ctx, LookEvery)
		d, err := look(one)
		cancel()
		if d != nil {
			return d
		}
		if err != nil && !failed && ctx.Err() == nil {
			report(err)
		}
		failed = err != nil
	}
	return nil
}

func waitFor(ctx context.Context, tick *time.Ticker) {
	select {
	case <-ctx.Done():
	case <-tick.C:
	}
}

// departure looks once.
func (e *ec2) departure(ctx context.Context) (*Departure, error) {
	cfg, err := e.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("discovery: aws: %w", err)
	}
	client := imds.NewFromConfig(cfg)
	state, err := metadataOf(ctx, client, "autoscaling/target-lifecycle-state")
	if err != nil {
		return nil, err
	}
	action, err := metadataOf(ctx, client, "spot/instance-action")
	if err != nil {
		return nil, err
	}
	d := &Departure{}
	if action != "" {
		var notice struct {
			Action string    `json:"action"`
			Time   time.Time `json:"time"`
		}
		if err := json.Unmarshal([]byte(action), &notice); err != nil {
			return nil, fmt.Errorf("discovery: aws: spot/instance-action: %w", err)
		}
		d.Why, d.By = "spot interruption: "+notice.Action, notice.Time
	}
	if state == "Terminated" {
		instance, err := metadataOf(ctx, client, "instance-id")
		if err != nil {
			return nil, err
		}
		d.Why, d.group = cmp.Or(d.Why, "the autoscaling group ends it"), &asg{cfg: cfg, instance: instance}
	}
	if d.Why == "" {
		return nil, nil
	}
	return d, nil
}

// metadataOf is what IMDSv2 tells; nothing if there is no such thing.
func metadataOf(ctx context.Context, client *imds.Client, path string) (string, error) {
	answer, err := client.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	var status interface{ HTTPStatusCode() int }
	if errors.As(err, &status) && status.HTTPStatusCode() == http.StatusNotFound {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("discovery: aws: %w", err)
	}
	defer answer.Content.Close() //nolint:errcheck // read only
	content, err := io.ReadAll(io.LimitReader(answer.Content, maxName))
	return strings.TrimSpace(string(content)), err
}

// preempted looks once. What ends otherwise on Compute Engine sends SIGTERM by shutting down.
func preempted(ctx context.Context) (*Departure, error) {
	now, err := metadata.GetWithContext(ctx, "instance/preempted")
	if err != nil {
		return nil, fmt.Errorf("discovery: gce: %w", err)
	}
	if now != "TRUE" {
		return nil, nil
	}
	return &Departure{Why: "preemption", By: time.Now().Add(preemptionNotice)}, nil
}

// preemptionNotice is what Compute Engine leaves between notice and end.
const preemptionNotice = 30 * time.Second

// asg is an autoscaling group's wait for one instance.
type asg struct {
	cfg      aws.Config
	instance string
	name     string // of the group, once it is known
	hooks    []hook
}

// hook is one of those that instances of a group wait for before they end.
type hook struct {
	Name       string `xml:"LifecycleHookName"`
	Transition string `xml:"LifecycleTransition"`
	Seconds    int    `xml:"HeartbeatTimeout"`
}

const terminating = "autoscaling:EC2_INSTANCE_TERMINATING"

// Hold tells the autoscaling group that this machine still has things to do, as often as its lifecycle hooks want it, until ctx
// ends. Without a group it returns at once. Errors go to report.
func (d *Departure) Hold(ctx context.Context, report func(error)) {
	if d.group == nil {
		return
	}
	for ctx.Err() == nil {
		every, err := d.group.each(ctx, "RecordLifecycleActionHeartbeat", nil)
		if err != nil && ctx.Err() == nil {
			report(fmt.Errorf("discovery: aws: heartbeat: %w", err))
		}
		tick := time.NewTicker(every)
		waitFor(ctx, tick)
		tick.Stop()
	}
}

// Complete tells the autoscaling group that this machine may end now. Without a group it does nothing. It blocks until that is said, has been tried often enough, or
// ctx ends.
func (d *Departure) Complete(ctx context.Context) error {
	if d.group == nil {
		return nil
	}
	if _, err := d.group.each(ctx, "CompleteLifecycleAction", url.Values{"LifecycleActionResult": {"CONTINUE"}}); err != nil {
		return fmt.Errorf("discovery: aws: %w: the group ends this machine once its hook's timeout is over", err)
	}
	return nil
}

// each calls an action for each hook, and returns how often a heartbeat is due.
func (g *asg) each(ctx context.Context, action string, with url.Values) (every time.Duration, err error) {
	const soon = 5 * time.Second
	if err := g.find(ctx); err != nil {
		return soon, err
	}
	every = time.Hour
	for _, h := range g.hooks {
		form := url.Values{"AutoScalingGroupName": {g.name}, "LifecycleHookName": {h.Name}, "InstanceId": {g.instance}}
		for k, v := range with {
			form[k] = v
		}
		if e := g.call(ctx, action, form, nil); e != nil {
			err = errors.Join(err, fmt.Errorf("hook %s: %w", h.Name, e))
		}
		if h.Seconds > 0 {
			every = min(every, time.Duration(h.Seconds)*time.Second/3)
		}
	}
	return max(every, soon), err
}

// find learns the group's name and hooks; what has been found once stays.
func (g *asg) find(ctx context.Context) error {
	if g.name == "" {
		var answer struct {
			Group string `xml:"DescribeAutoScalingInstancesResult>AutoScalingInstances>member>AutoScalingGroupName"`
		}
		if err := g.call(ctx, "DescribeAutoScalingInstances", url.Values{"InstanceIds.member.1": {g.instance}}, &answer); err != nil {
			return err
		}
		if answer.Group == "" {
			return fmt.Errorf("%s is in no autoscaling group", g.instance)
		}
		g.name = answer.Group
	}
	if g.hooks == nil {
		var answer struct {
			Hooks []hook `xml:"DescribeLifecycleHooksResult>LifecycleHooks>member"`
		}
		if err := g.call(ctx, "DescribeLifecycleHooks", url.Values{"AutoScalingGroupName": {g.name}}, &answer); err != nil {
			return err
		}
		g.hooks = []hook{}
		for _, h := range answer.Hooks {
			if h.Transition == terminating {
				g.hooks = append(g.hooks, h)
			}
		}
	}
	return nil
}

func (g *asg) call(ctx context.Context, action string, form url.Values, answer any) error {
	form.Set("Action", action)
	form.Set("Version", "2011-01-01")
	return page(ctx, func(ctx context.Context) error { return query(ctx, g.cfg, "autoscaling", form, answer) })
}
