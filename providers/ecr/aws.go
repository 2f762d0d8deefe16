package ecr

import (
	"context"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// sessionName is what CloudTrail shows of a role that we take.
const sessionName = "twinport"

// awsConfig finds the identity: AWS's default chain (environment, profile, web
// identity as IRSA gives it, Pod Identity, the instance's role), then the role
// of the config. Nothing is asked before the first use. All goes through rt but
// the instance's metadata service: it is a part of this machine, and its
// silence says nothing about the registry.
func awsConfig(spec generic.Spec, region string, rt http.RoundTripper) (aws.Config, error) {
	ctx := context.Background()
	options := []func(*config.LoadOptions) error{
		config.WithRegion(region),
		config.WithRetryMaxAttempts(3), // the job has retries of its own
		config.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = imds.New(imds.Options{}) }),
	}
	client := &http.Client{Transport: tokenClass{rt}}
	c, err := config.LoadDefaultConfig(ctx, append(options, config.WithHTTPClient(client))...)
	if err != nil {
		// AWS_CA_BUNDLE (or a profile's ca_bundle) wants a client of the SDK's own:
		// it then serves what the chain asks, and ours what is asked of ECR.
		if c, err = config.LoadDefaultConfig(ctx, options...); err != nil {
			return aws.Config{}, fmt.Errorf("registry %s: config of AWS: %w", spec.Name, err)
		}
		c.HTTPClient = client
	}
	role := spec.Auth.AssumeRole
	if role != nil {
		c.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(c), role.ARN, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = sessionName
			if role.ExternalID != "" {
				o.ExternalID = aws.String(role.ExternalID)
			}
		}))
	}
	c.Credentials = identity{chain: c.Credentials, role: role}
	return c, nil
}

// tokenClass gives requests for credentials, which the SDK makes by itself,
// their class.
type tokenClass struct{ rt http.RoundTripper }

func (t tokenClass) RoundTrip(req *http.Request) (*http.Response, error) {
	if oci.OperationOf(req.Context()) == "other" {
		req = req.WithContext(oci.WithOperation(req.Context(), oci.OpToken))
	}
	return t.rt.RoundTrip(req)
}

// An identity marks the errors of its chain, so that they can be told from the
// registry's.
type identity struct {
	chain aws.CredentialsProvider
	role  *generic.AssumeRole
}

func (i identity) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := i.chain.Retrieve(oci.WithOperation(ctx, oci.OpToken))
	if err != nil {
		err = &identityError{role: i.role, err: err}
	}
	return c, err
}

// An identityError is that no credentials were to be had.
type identityError struct {
	role *generic.AssumeRole
	err  error
}

func (e *identityError) Error() string { return e.err.Error() }
func (e *identityError) Unwrap() error { return e.err }
