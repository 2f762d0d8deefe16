package ecr

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

var (
	_ oci.Introspector        = (*Registry)(nil)
	_ oci.CreationTester      = (*Registry)(nil)
	_ oci.TemporaryRepository = (*Repository)(nil)
	_ oci.Rehearser           = (*Repository)(nil)
)

// Account is the ARN that STS knows the identity by, once ECR has given it a
// token. STS answers everybody (GetCallerIdentity needs no permission), but a
// network that lets only ECR through may not have it.
func (r *Registry) Account(ctx context.Context) (string, error) {
	if r.api == nil {
		return r.Registry.Account(ctx)
	}
	out, err := r.sts.GetCallerIdentity(oci.WithOperation(ctx, oci.OpToken), &sts.GetCallerIdentityInput{})
	if err == nil {
		return oneLine(aws.ToString(out.Arn)), r.LoggedIn(ctx)
	}
	fault := apiError(ctx, r.name, "sts", "GetCallerIdentity", "", err)
	if errors.Is(fault, oci.ErrDenied) {
		return "", fault
	}
	if err := r.LoggedIn(ctx); err != nil {
		return "", err
	}
	oci.Detour(ctx, fault)
	return "an identity of AWS that STS did not name", nil
}

// Ready tells whether the repository is there.
func (r *Registry) Ready(ctx context.Context, repository string) error {
	if r.api == nil {
		return oci.ErrUnsupported
	}
	return r.api.exists(ctx, r.FullName(repository))
}

// MayCreate asks for a repository that is there: AWS decides whether the
// identity may before it looks whether there is one.
func (r *Registry) MayCreate(ctx context.Context, repository string) error {
	if err := r.Ready(ctx, repository); err != nil {
		return err
	}
	return r.api.make(ctx, r.FullName(repository), &generic.Create{})
}

// Make makes the repository, plain.
func (p *Repository) Make(ctx context.Context) error {
	if p.reg.api == nil {
		return oci.ErrUnsupported
	}
	if err := p.checkName(); err != nil {
		return err
	}
	return p.reg.api.make(ctx, p.FullName(), &generic.Create{})
}

// Remove deletes the repository where it holds no image.
func (p *Repository) Remove(ctx context.Context) error {
	if p.reg.api == nil {
		return oci.ErrUnsupported
	}
	return p.reg.api.remove(ctx, p.FullName())
}

// RehearsePush begins an upload, ends it with bytes of another digest, and
// sends a manifest under another digest than its own: an identity that may is
// told that they do not match, and nothing is stored. Each step is an IAM
// action of its own (ECR user guide, "IAM permissions for pushing an image").
func (p *Repository) RehearsePush(ctx context.Context) error {
	content := []byte("a rehearsal of twinport check")
	wrong := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromString("other bytes"), Size: int64(len(content))}
	if err := p.RehearseBlob(ctx, wrong, content); err != nil {
		return err
	}
	manifest := `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `","config":{"mediaType":"` + v1.MediaTypeImageConfig +
		`","digest":"` + wrong.Digest.String() + `","size":2},"layers":[]}`
	return p.RehearseManifest(ctx, oci.Manifest{MediaType: v1.MediaTypeImageManifest, Digest: wrong.Digest, Bytes: []byte(manifest)})
}
