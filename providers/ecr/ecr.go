// Package ecr is the client of Amazon's registries, private (kind ecr) and
// public (kind ecr-public): the distribution protocol for content, and AWS's
// own API for logging in, for what a registry holds, and for making
// repositories. It also reads what they tell, by EventBridge, SNS and SQS.
package ecr

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// PublicHost is where every public registry of Amazon's lives.
const PublicHost = "public.ecr.aws"

// A Registry is one account's registry in one region, or one public one.
type Registry struct {
	*generic.Registry
	name     string
	identity string
	// api is nil where the config logs in by itself: then nothing is known of
	// AWS, and the registry is asked as any other.
	api    service
	sts    *sts.Client // nil with api
	create *generic.Create
	// archive knows what the last listings told as archived.
	archive archive
	// making: one making of a repository at a time; unfinished names those
	// whose policies are still to be set.
	making     singleflight.Group
	unfinished sync.Map
}

// A service is what AWS's API tells and does of one registry. Names of
// repositories are whole. Its errors are classified.
type service interface {
	login(ctx context.Context) (generic.Login, error)
	repositories(ctx context.Context) iter.Seq2[string, error]
	tags(ctx context.Context, repository string) iter.Seq2[oci.Tag, error]
	// exists gives oci.ErrRepositoryUnknown where there is none.
	exists(ctx context.Context, repository string) error
	// make is nil where the repository is there already.
	make(ctx context.Context, repository string, how *generic.Create) error
	setLifecycle(ctx context.Context, repository, policy string) error
	// setPolicy says who else may use a repository.
	setPolicy(ctx context.Context, repository, policy string) error
	// layers gives the sizes of the blobs that are there, of 100 at most.
	layers(ctx context.Context, repository string, digests []digest.Digest) (map[digest.Digest]int64, error)
	// remove takes away a repository that holds no image.
	remove(ctx context.Context, repository string) error
	deleteTag(ctx context.Context, repository, tag string) error
}

// A Host is what the name of a private registry tells: account and region,
// empty where it tells none (a host of one's own before it).
type Host struct{ Account, Region string }

// hostPattern is of the plain, FIPS and dual-stack names of all partitions
// (ECR user guide, "Amazon ECR registries" and "Making requests").
var hostPattern = regexp.MustCompile(`^([0-9]{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com|amazonaws\.com\.cn|on\.aws|on\.amazonwebservices\.com\.cn|amazonaws\.eu|c2s\.ic\.gov|sc2s\.sgov\.gov)$`)

// ParseHost takes a registry's host apart.
func ParseHost(host string) Host {
	if m := hostPattern.FindStringSubmatch(host); m != nil {
		return Host{Account: m[1], Region: m[2]}
	}
	return Host{}
}

// New gives a client for a private registry; every request, those of AWS's API
// too, goes through rt.
func New(spec generic.Spec, rt http.RoundTripper) (*Registry, error) {
	host := ParseHost(spec.Host)
	r := &Registry{name: spec.Name, create: spec.Create}
	if host.Account != "" {
		r.identity = "ecr://" + host.Account + "." + host.Region
	}
	if host.Region == "" {
		host.Region = spec.Region
	}
	if byItself(spec.Auth) {
		return r.open(spec, rt, nil)
	}
	if host.Region == "" {
		return nil, fmt.Errorf("registry %s: %.80q does not tell its region; set region, as in eu-west-1", spec.Name, spec.Host)
	}
	config, err := awsConfig(spec, host.Region, rt)
	if err != nil {
		return nil, err
	}
	r.sts = sts.NewFromConfig(config)
	return r.open(spec, rt, newPrivate(spec.Name, host.Account, config, &r.archive))
}

// NewPublic gives a client for a public registry. Its API lives in us-east-1
// alone, wherever it is asked from.
func NewPublic(spec generic.Spec, rt http.RoundTripper) (*Registry, error) {
	r := &Registry{name: spec.Name, create: spec.Create}
	if byItself(spec.Auth) {
		return r.open(spec, rt, nil)
	}
	config, err := awsConfig(spec, "us-east-1", rt)
	if err != nil {
		return nil, err
	}
	r.sts = sts.NewFromConfig(config)
	return r.open(spec, rt, newPublic(spec, config))
}

// byItself tells whether the config's own words log in, without AWS.
func byItself(a generic.Auth) bool {
	return a.Username != "" || a.Password != nil || a.Token != nil || a.Anonymous
}

func (r *Registry) open(spec generic.Spec, rt http.RoundTripper, api service) (*Registry, error) {
	if r.create != nil {
		for what, policy := range map[string]string{"lifecycle policy": r.create.Lifecycle, "policy": r.create.Policy} {
			if policy != "" && !json.Valid([]byte(policy)) {
				return nil, fmt.Errorf("registry %s: the %s of create is no JSON", r.name, what)
			}
		}
	}
	// No Resume: ECR takes chunks but tells a wrong Range after the first, and
	// a session used again from its first byte answers 416
	// (aws/containers-roadmap #2831). A broken upload begins a new session.
	ways := generic.Ways{Classify: classify}
	if api != nil {
		ways.Login = func(ctx context.Context, _ bool) (generic.Login, error) { return api.login(ctx) }
		r.api = api
	}
	g, err := generic.NewWith(spec, rt, ways)
	if err != nil {
		return nil, err
	}
	r.Registry = g
	if r.identity == "" {
		r.identity = g.Identity()
	} else if g.Prefix() != "" {
		r.identity += "/" + g.Prefix()
	}
	return r, nil
}

// Identity is account, region and prefix: the names of one registry
// (dual-stack, FIPS) are one.
func (r *Registry) Identity() string { return r.identity }

// Repository gives a handle; nothing is asked of the registry.
func (r *Registry) Repository(name string) oci.Repository {
	return &Repository{Repository: r.Open(name), reg: r}
}

// A Repository is one repository of a registry.
type Repository struct {
	*generic.Repository
	reg *Registry
}

var (
	_ oci.Registry        = (*Registry)(nil)
	_ oci.Repository      = (*Repository)(nil)
	_ oci.RangeFetcher    = (*Repository)(nil)
	_ oci.BatchStatter    = (*Repository)(nil)
	_ oci.RepositoryMaker = (*Repository)(nil)
)

// Rates are the quotas of requests per second, a twentieth below what AWS
// grants an account (Service Quotas, "Amazon ECR"): others use it too, and what
// is refused costs more than what waits. PutImage is what a backfill runs into.
func Rates(kind string) map[oci.Operation]float64 {
	if kind == "ecr-public" {
		// CompleteLayerUpload and PutImage 10; InitiateLayerUpload 10 by one edition
		// of the page, 200 by another; the rest 200.
		return map[oci.Operation]float64{
			oci.OpManifestWrite: 9.5, oci.OpBlobWrite: 9.5, oci.OpUploadStart: 9.5, oci.OpBlobHead: 190,
		}
	}
	return map[oci.Operation]float64{
		oci.OpManifestWrite: 9.5,  // PutImage 10
		oci.OpUploadStart:   95,   // InitiateLayerUpload 100
		oci.OpBlobWrite:     95,   // CompleteLayerUpload 100
		oci.OpBlobHead:      950,  // BatchCheckLayerAvailability 1,000
		oci.OpManifestRead:  950,  // BatchGetImage 2,000, shared
		oci.OpManifestHead:  950,  // by these two
		oci.OpBlobRead:      2850, // GetDownloadUrlForLayer 3,000
	}
}
