package ecr

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	publictypes "github.com/aws/aws-sdk-go-v2/service/ecrpublic/types"

	"github.com/twinport/twinport/replicator/oci"
)

var _ oci.TagDeleter = (*Repository)(nil)

// DeleteTag removes a tag by BatchDeleteImage, named by its tag alone: with a
// digest the image would go with all its tags.
func (p *Repository) DeleteTag(ctx context.Context, tag string) error {
	if err := oci.CheckTag(tag); err != nil {
		return err
	}
	if err := oci.CheckRepository(p.FullName()); err != nil {
		return err
	}
	if p.reg.api == nil {
		return p.Repository.DeleteTag(ctx, tag)
	}
	return p.reg.api.deleteTag(ctx, p.FullName(), tag)
}

// DropsUntagged is so: "When you remove the last tag from an image, the image
// is deleted from your repository" (ECR API reference, BatchDeleteImage).
func (p *Repository) DropsUntagged() bool { return true }

func (p *private) deleteTag(ctx context.Context, repository, tag string) error {
	out, err := p.api.BatchDeleteImage(oci.WithOperation(ctx, oci.OpDelete), &ecr.BatchDeleteImageInput{
		RegistryId: p.registry, RepositoryName: aws.String(repository), ImageIds: []types.ImageIdentifier{{ImageTag: aws.String(tag)}},
	})
	if err != nil {
		return p.fault(ctx, "BatchDeleteImage", repository+":"+tag, err)
	}
	if len(out.Failures) > 0 {
		f := out.Failures[0]
		return notDeleted(p.name, repository+":"+tag, string(f.FailureCode), aws.ToString(f.FailureReason))
	}
	return nil
}

func (p *public) deleteTag(ctx context.Context, repository, tag string) error {
	name, err := p.own(repository)
	if err != nil {
		return err
	}
	out, err := p.api.BatchDeleteImage(oci.WithOperation(ctx, oci.OpDelete), &ecrpublic.BatchDeleteImageInput{
		RepositoryName: aws.String(name), ImageIds: []publictypes.ImageIdentifier{{ImageTag: aws.String(tag)}},
	})
	if err != nil {
		return p.fault(ctx, "BatchDeleteImage", repository+":"+tag, err)
	}
	if len(out.Failures) > 0 {
		f := out.Failures[0]
		return notDeleted(p.name, repository+":"+tag, string(f.FailureCode), aws.ToString(f.FailureReason))
	}
	return nil
}

// notDeleted is a failure of one image in an answer that is 200.
func notDeleted(registry, what, code, reason string) error {
	e := &oci.RegistryError{
		Registry: registry, Operation: "BatchDeleteImage " + what, Code: oneLine(code), Message: oneLine(reason), Kind: oci.ErrRefused,
	}
	switch code {
	case "ImageNotFound":
		e.Kind = oci.ErrNotFound
	case "ImageReferencedByManifestList":
		e.Hint = "a multi-platform image in the repository still names it; remove that one's tag first"
	case "KmsError":
		e.Hint = "the repository's KMS key is disabled or may not be used; check the key and its policy"
	}
	return e
}
