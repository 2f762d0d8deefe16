package ecr

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic/types"
	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// public is the API of public registries. It knows repositories without the
// alias that their addresses begin with, and only those of the identity's own
// account.
type public struct {
	name  string
	alias string
	api   *ecrpublic.Client
}

func newPublic(spec generic.Spec, config aws.Config) *public {
	alias, _, _ := strings.Cut(strings.Trim(spec.Prefix, "/"), "/")
	return &public{name: spec.Name, alias: alias, api: ecrpublic.NewFromConfig(config)}
}

func (p *public) fault(ctx context.Context, call, what string, err error) error {
	return apiError(ctx, p.name, "ecr-public", call, what, err)
}

// login asks for the token that the registry's realm exchanges for others.
func (p *public) login(ctx context.Context) (generic.Login, error) {
	out, err := p.api.GetAuthorizationToken(oci.WithOperation(ctx, oci.OpToken), &ecrpublic.GetAuthorizationTokenInput{})
	if err != nil {
		err = p.fault(ctx, "GetAuthorizationToken", "", err)
		var denied *oci.RegistryError
		if errors.As(err, &denied) && errors.Is(err, oci.ErrDenied) && denied.Code != "" && denied.Status != 0 {
			denied.Hint = "allow the IAM actions ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken to this identity"
		}
		return generic.Login{}, err
	}
	if out.AuthorizationData == nil {
		return generic.Login{}, senseless(p.name, "GetAuthorizationToken", "the answer holds no token")
	}
	l, err := readToken(p.name, out.AuthorizationData.AuthorizationToken)
	if expires := out.AuthorizationData.ExpiresAt; expires != nil {
		l.Expires = *expires
	}
	return l, err
}

// own takes the alias off a name; a name outside it belongs to somebody else.
func (p *public) own(repository string) (string, error) {
	name, ok := strings.CutPrefix(repository, p.alias+"/")
	if !ok || p.alias == "" {
		return "", fmt.Errorf("%s: %.80q is not below an alias; write the address as %s/ALIAS: %w", p.name, repository, PublicHost, oci.ErrRefused)
	}
	return name, nil
}

// repositories lists those of the identity's own registry. Where the alias is
// not its, nobody lists them for us.
func (p *public) repositories(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := p.owned(ctx); err != nil {
			yield("", err)
			return
		}
		in := &ecrpublic.DescribeRepositoriesInput{MaxResults: aws.Int32(pageSize)}
		for page := 0; ; page++ {
			out, err := p.api.DescribeRepositories(oci.WithOperation(ctx, oci.OpList), in)
			if err != nil {
				yield("", p.fault(ctx, "DescribeRepositories", "", err))
				return
			}
			for _, repository := range out.Repositories {
				if !yield(p.alias+"/"+aws.ToString(repository.RepositoryName), nil) {
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

// owned gives oci.ErrUnlistable where the alias is another account's.
func (p *public) owned(ctx context.Context) error {
	out, err := p.api.DescribeRegistries(oci.WithOperation(ctx, oci.OpList), &ecrpublic.DescribeRegistriesInput{})
	if err != nil {
		return p.fault(ctx, "DescribeRegistries", "", err)
	}
	for _, registry := range out.Registries {
		for _, alias := range registry.Aliases {
			if p.alias != "" && aws.ToString(alias.Name) == p.alias {
				return nil
			}
		}
	}
	return &oci.RegistryError{
		Registry: p.name, Operation: "DescribeRegistries", Kind: oci.ErrUnlistable,
		Message: fmt.Sprintf("the alias %.80q is not this identity's", p.alias),
		Hint:    "name the repositories literally under repositories.include",
	}
}

func (p *public) tags(ctx context.Context, repository string) iter.Seq2[oci.Tag, error] {
	return func(yield func(oci.Tag, error) bool) {
		name, err := p.own(repository)
		if err == nil {
			err = p.owned(ctx)
		}
		if err != nil {
			yield(oci.Tag{}, err)
			return
		}
		in := &ecrpublic.DescribeImagesInput{RepositoryName: aws.String(name), MaxResults: aws.Int32(pageSize)}
		for page := 0; ; page++ {
			out, err := p.api.DescribeImages(oci.WithOperation(ctx, oci.OpList), in)
			if err != nil {
				yield(oci.Tag{}, p.fault(ctx, "DescribeImages", repository, err))
				return
			}
			for _, image := range out.ImageDetails {
				var at time.Time
				if image.ImagePushedAt != nil {
					at = image.ImagePushedAt.UTC()
				}
				for _, name := range image.ImageTags {
					tag := oci.Tag{Name: name, Digest: digest.Digest(aws.ToString(image.ImageDigest)), PushedAt: at}
					if oci.CheckTag(name) != nil || oci.CheckDigest(tag.Digest) != nil {
						continue
					}
					if !yield(tag, nil) {
						return
					}
				}
			}
			switch next := aws.ToString(out.NextToken); {
			case next == "":
				return
			case next == aws.ToString(in.NextToken) || page >= maxPages:
				yield(oci.Tag{}, senseless(p.name, "DescribeImages "+repository, "the list has no end"))
				return
			}
			in.NextToken = out.NextToken
		}
	}
}

func (p *public) exists(ctx context.Context, repository string) error {
	name, err := p.own(repository)
	if err != nil {
		return err
	}
	_, err = p.api.DescribeRepositories(oci.WithOperation(ctx, oci.OpList), &ecrpublic.DescribeRepositoriesInput{RepositoryNames: []string{name}})
	return p.fault(ctx, "DescribeRepositories", repository, err)
}

// make: public repositories know no mutability, keys, scans or lifecycles.
func (p *public) make(ctx context.Context, repository string, how *generic.Create) error {
	name, err := p.own(repository)
	if err != nil {
		return err
	}
	in := &ecrpublic.CreateRepositoryInput{RepositoryName: aws.String(name)}
	for _, key := range sortedKeys(how.Labels) {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(key), Value: aws.String(how.Labels[key])})
	}
	_, err = p.api.CreateRepository(oci.WithOperation(ctx, oci.OpCreate), in)
	var there *types.RepositoryAlreadyExistsException
	if errors.As(err, &there) {
		return nil
	}
	return p.fault(ctx, "CreateRepository", repository, err)
}

func (p *public) layers(ctx context.Context, repository string, digests []digest.Digest) (map[digest.Digest]int64, error) {
	name, err := p.own(repository)
	if err != nil {
		return nil, err
	}
	out, err := p.api.BatchCheckLayerAvailability(oci.WithOperation(ctx, oci.OpBlobHead), &ecrpublic.BatchCheckLayerAvailabilityInput{
		RepositoryName: aws.String(name), LayerDigests: texts(digests),
	})
	if err != nil {
		return nil, p.fault(ctx, "BatchCheckLayerAvailability", repository, err)
	}
	sizes := make(map[digest.Digest]int64, len(out.Layers))
	for _, layer := range out.Layers {
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

func (p *public) remove(ctx context.Context, repository string) error {
	name, err := p.own(repository)
	if err != nil {
		return err
	}
	_, err = p.api.DeleteRepository(oci.WithOperation(ctx, oci.OpDelete), &ecrpublic.DeleteRepositoryInput{RepositoryName: aws.String(name)})
	return p.fault(ctx, "DeleteRepository", repository, err)
}

func (p *public) setPolicy(ctx context.Context, repository, policy string) error {
	name, err := p.own(repository)
	if err != nil {
		return err
	}
	_, err = p.api.SetRepositoryPolicy(oci.WithOperation(ctx, oci.OpCreate), &ecrpublic.SetRepositoryPolicyInput{
		RepositoryName: aws.String(name), PolicyText: aws.String(policy),
	})
	return p.fault(ctx, "SetRepositoryPolicy", repository, err)
}

func (p *public) setLifecycle(context.Context, string, string) error { return nil }

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
