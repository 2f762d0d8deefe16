package ecr

import (
	"context"
	"encoding/base64"
	"errors"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// pageSize is the most DescribeRepositories and DescribeImages give at once.
	pageSize = 1000
	// maxPages bounds one listing: ECR's own bound is 100,000 images a
	// repository and far fewer repositories.
	maxPages = 10_000
)

// private is the API of private registries.
type private struct {
	name string
	// registry is the account, nil for the identity's own.
	registry *string
	api      *ecr.Client
	archive  *archive
}

func newPrivate(name, account string, config aws.Config, archive *archive) *private {
	p := &private{name: name, api: ecr.NewFromConfig(config), archive: archive}
	if account != "" {
		p.registry = aws.String(account)
	}
	return p
}

func (p *private) fault(ctx context.Context, call, what string, err error) error {
	return apiError(ctx, p.name, "ecr", call, what, err)
}

// login asks for a token: it lets in to all that the identity may use in the
// region for 12 hours, and has no use for registry ids.
func (p *private) login(ctx context.Context) (generic.Login, error) {
	out, err := p.api.GetAuthorizationToken(oci.WithOperation(ctx, oci.OpToken), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return generic.Login{}, p.fault(ctx, "GetAuthorizationToken", "", err)
	}
	if len(out.AuthorizationData) == 0 {
		return generic.Login{}, senseless(p.name, "GetAuthorizationToken", "the answer holds no token")
	}
	l, err := readToken(p.name, out.AuthorizationData[0].AuthorizationToken)
	if expires := out.AuthorizationData[0].ExpiresAt; expires != nil {
		l.Expires = *expires
	}
	return l, err
}

// readToken takes a token apart, base64 of `AWS:password`.
func readToken(name string, token *string) (generic.Login, error) {
	raw, err := base64.StdEncoding.DecodeString(aws.ToString(token))
	username, password, ok := strings.Cut(string(raw), ":")
	if err != nil || !ok || password == "" || len(raw) > 64<<10 {
		return generic.Login{}, senseless(name, "GetAuthorizationToken", "the answer holds no usable token")
	}
	return generic.Login{Username: username, Password: password}, nil
}

func senseless(name, call, message string) error {
	return &oci.RegistryError{Registry: name, Operation: call, Message: message, Kind: oci.ErrInvalid}
}

func (p *private) repositories(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		in := &ecr.DescribeRepositoriesInput{RegistryId: p.registry, MaxResults: aws.Int32(pageSize)}
		for page := 0; ; page++ {
			out, err := p.api.DescribeRepositories(oci.WithOperation(ctx, oci.OpList), in)
			if err != nil {
				yield("", p.fault(ctx, "DescribeRepositories", "", err))
				return
			}
			for _, repository := range out.Repositories {
				if !yield(aws.ToString(repository.RepositoryName), nil) {
					return
				}
			}
			switch next := aws.ToString(out.NextToken); {
			case next == "":
				return
			case next == aws.ToString(in.NextToken) || page >= maxPages:
				yield("", senseless(p.name, "DescribeRepositories", "the list has no end"))
				return
			}
			in.NextToken = out.NextToken
		}
	}
}

// tags lists what is tagged, archived images too: they are there, though no GET
// answers for them until they are restored.
func (p *private) tags(ctx context.Context, repository string) iter.Seq2[oci.Tag, error] {
	return func(yield func(oci.Tag, error) bool) {
		in := &ecr.DescribeImagesInput{
			RegistryId: p.registry, RepositoryName: aws.String(repository), MaxResults: aws.Int32(pageSize),
			Filter: &types.DescribeImagesFilter{TagStatus: types.TagStatusTagged, ImageStatus: types.ImageStatusFilterAny},
		}
		archived := make(map[string]bool)
		for page := 0; ; page++ {
			out, err := p.api.DescribeImages(oci.WithOperation(ctx, oci.OpList), in)
			if err != nil {
				yield(oci.Tag{}, p.fault(ctx, "DescribeImages", repository, err))
				return
			}
			for _, image := range out.ImageDetails {
				withheld := image.ImageStatus == types.ImageStatusArchived || image.ImageStatus == types.ImageStatusActivating
				if withheld {
					note(archived, aws.ToString(image.ImageDigest), image.ImageTags)
				}
				for _, name := range image.ImageTags {
					tag := oci.Tag{Name: name, Digest: digest.Digest(aws.ToString(image.ImageDigest)), Withheld: withheld}
					if oci.CheckTag(name) != nil || oci.CheckDigest(tag.Digest) != nil {
						continue
					}
					if image.ImagePushedAt != nil {
						tag.PushedAt = image.ImagePushedAt.UTC()
					}
					if !yield(tag, nil) {
						return
					}
				}
			}
			switch next := aws.ToString(out.NextToken); {
			case next == "":
				p.archive.keep(repository, archived)
				return
			case next == aws.ToString(in.NextToken) || page >= maxPages:
				yield(oci.Tag{}, senseless(p.name, "DescribeImages "+repository, "the list has no end"))
				return
			}
			in.NextToken = out.NextToken
		}
	}
}

func (p *private) exists(ctx context.Context, repository string) error {
	_, err := p.api.DescribeRepositories(oci.WithOperation(ctx, oci.OpList), &ecr.DescribeRepositoriesInput{
		RegistryId: p.registry, RepositoryNames: []string{repository},
	})
	return p.fault(ctx, "DescribeRepositories", repository, err)
}

func (p *private) make(ctx context.Context, repository string, how *generic.Create) error {
	in := &ecr.CreateRepositoryInput{RegistryId: p.registry, RepositoryName: aws.String(repository)}
	if how.ImmutableTags {
		// Not plain IMMUTABLE: fallback indexes and cosign's signatures live at
		// tags `sha256-…` that have to grow (distribution-spec, "Referrers Tag Schema").
		in.ImageTagMutability = types.ImageTagMutabilityImmutableWithExclusion
		in.ImageTagMutabilityExclusionFilters = []types.ImageTagMutabilityExclusionFilter{{
			Filter: aws.String("sha256-*"), FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard,
		}}
	}
	if how.KMS != "" {
		in.EncryptionConfiguration = &types.EncryptionConfiguration{EncryptionType: types.EncryptionTypeKms, KmsKey: aws.String(how.KMS)}
	}
	if how.Scan {
		in.ImageScanningConfiguration = &types.ImageScanningConfiguration{ScanOnPush: true}
	}
	for _, key := range sortedKeys(how.Labels) {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(key), Value: aws.String(how.Labels[key])})
	}
	_, err := p.api.CreateRepository(oci.WithOperation(ctx, oci.OpCreate), in)
	var there *types.RepositoryAlreadyExistsException
	if errors.As(err, &there) {
		return nil // somebody else was faster
	}
	return p.fault(ctx, "CreateRepository", repository, err)
}

func (p *private) setPolicy(ctx context.Context, repository, policy string) error {
	_, err := p.api.SetRepositoryPolicy(oci.WithOperation(ctx, oci.OpCreate), &ecr.SetRepositoryPolicyInput{
		RegistryId: p.registry, RepositoryName: aws.String(repository), PolicyText: aws.String(policy),
	})
	return p.fault(ctx, "SetRepositoryPolicy", repository, err)
}

func (p *private) layers(ctx context.Context, repository string, digests []digest.Digest) (map[digest.Digest]int64, error) {
	out, err := p.api.BatchCheckLayerAvailability(oci.WithOperation(ctx, oci.OpBlobHead), &ecr.BatchCheckLayerAvailabilityInput{
		RegistryId: p.registry, RepositoryName: aws.String(repository), LayerDigests: texts(digests),
	})
	if err != nil {
		return nil, p.fault(ctx, "BatchCheckLayerAvailability", repository, err)
	}
	sizes := make(map[digest.Digest]int64, len(out.Layers))
	for _, layer := range out.Layers {
		// One of an archived image cannot be had; pushing it again restores it.
		if layer.LayerAvailability == types.LayerAvailabilityAvailable {
			sizes[digest.Digest(aws.ToString(layer.LayerDigest))] = sizeOf(layer.LayerSize)
		}
	}
	for _, failure := range out.Failures {
		if failure.FailureCode != types.LayerFailureCodeMissingLayerDigest {
			return nil, refusedLayer(p.name, repository, aws.ToString(failure.LayerDigest), aws.ToString(failure.FailureReason))
		}
	}
	return sizes, nil
}

func (p *private) setLifecycle(ctx context.Context, repository, policy string) error {
	_, err := p.api.PutLifecyclePolicy(oci.WithOperation(ctx, oci.OpCreate), &ecr.PutLifecyclePolicyInput{
		RegistryId: p.registry, RepositoryName: aws.String(repository), LifecyclePolicyText: aws.String(policy),
	})
	return p.fault(ctx, "PutLifecyclePolicy", repository, err)
}

// remove is not forced: ECR keeps a repository that holds images.
func (p *private) remove(ctx context.Context, repository string) error {
	_, err := p.api.DeleteRepository(oci.WithOperation(ctx, oci.OpDelete), &ecr.DeleteRepositoryInput{
		RegistryId: p.registry, RepositoryName: aws.String(repository),
	})
	return p.fault(ctx, "DeleteRepository", repository, err)
}
