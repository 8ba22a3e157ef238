package discovery

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"cloud.google.com/go/compute/metadata"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// Place is where this machine is, as its cloud calls it.
type Place struct {
	// Instance and Zone; both empty: there is no cloud to ask.
	Instance, Zone string
	// Cloud is aws or gcp, as OpenTelemetry calls them.
	Cloud string
}

// Region is that of the zone, by how the clouds name them: us-east-1a and us-west-2-lax-1a are of us-east-1 and us-west-2, europe-west1-b is of
// europe-west1. Empty if the name is of another kind.
func (p Place) Region() string {
	switch p.Cloud {
	case "aws":
		return awsRegion.FindString(p.Zone)
	case "gcp":
		if at := strings.LastIndexByte(p.Zone, '-'); at > 0 {
			return p.Zone[:at]
		}
	}
	return ""
}

var awsRegion = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]+`)

// Here asks the metadata service of the first cloud that a specification names (aws: by IMDSv2, gce:) where this machine is. Endpoints are as the SDKs
// take them: AWS_EC2_METADATA_SERVICE_ENDPOINT, GCE_METADATA_HOST. Without a cloud it does no I/O. It blocks until there is an answer, until it has been tried
// often enough, or until ctx ends.
func Here(ctx context.Context, spec string) (p Place, err error) {
	for _, one := range split(spec) {
		switch scheme, _, _ := strings.Cut(one, ":"); scheme {
		case "aws":
			err = page(ctx, func(ctx context.Context) error { return inEC2(ctx, &p) })
		case "gce":
			err = page(ctx, func(ctx context.Context) error { return inGCE(ctx, &p) })
		default:
			continue
		}
		if err != nil {
			return Place{}, fmt.Errorf("discovery: %s: the metadata service does not tell where this machine is: %w", one, err)
		}
		return p, nil
	}
	return Place{}, nil
}

func inEC2(ctx context.Context, p *Place) error {
	p.Cloud = "aws"
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	client := imds.NewFromConfig(cfg)
	for path, to := range map[string]*string{"instance-id": &p.Instance, "placement/availability-zone": &p.Zone} {
		if *to, err = metadataOf(ctx, client, path); err == nil && *to == "" {
			err = errors.New(path + " is not told")
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errTryAgain, err)
		}
	}
	return nil
}

func inGCE(ctx context.Context, p *Place) (err error) {
	p.Cloud = "gcp"
	if p.Instance, err = metadata.InstanceIDWithContext(ctx); err == nil {
		p.Zone, err = metadata.ZoneWithContext(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errTryAgain, err)
	}
	return nil
}

// maxName is the longest name of an instance or a zone that is taken.
const maxName = 256
