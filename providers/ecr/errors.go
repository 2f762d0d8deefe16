package ecr

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"unicode"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/twinport/twinport/replicator/oci"
)

// maxMessage bounds what is shown of foreign text, in bytes.
const maxMessage = 300

// apiError classifies what a call of AWS's API ended with; service and call
// make the IAM action that it needs (`ecr`, `DescribeImages`).
func apiError(ctx context.Context, registry, service, call, what string, err error) error {
	if err == nil {
		return nil
	}
	e := &oci.RegistryError{Registry: registry, Operation: call}
	if what != "" {
		e.Operation += " " + what
	}
	if ctx.Err() != nil {
		e.Kind, e.Cause = ctx.Err(), context.Cause(ctx)
		return e
	}
	var noIdentity *identityError
	asked := errors.As(err, &noIdentity)
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) {
		e.Status = answer.HTTPStatusCode()
	}
	var api smithy.APIError
	var network net.Error
	if !errors.As(err, &api) {
		e.Message = oneLine(rootText(err))
		switch {
		case errors.Is(err, oci.ErrUnreachable):
			e.Kind = oci.ErrUnreachable
		case asked && errors.As(err, &network) && !strings.Contains(err.Error(), "ec2imds"):
			// Who gives credentials gave no answer. (The metadata service, which
			// the chain asks last, is silent where there is none.)
			e.Kind = oci.ErrUnreachable
		case asked:
			e.Kind = oci.ErrDenied
			e.Hint = "no identity of AWS was found: give keys in the environment, a profile, a web identity (IRSA), Pod Identity or an instance role; or username AWS with a password under auth"
		default:
			e.Kind = oci.ErrUnreachable
		}
		return e
	}
	e.Code, e.Message = oneLine(api.ErrorCode()), oneLine(api.ErrorMessage())
	switch code := api.ErrorCode(); {
	case isThrottling(code) || e.Status == http.StatusTooManyRequests:
		return &oci.ThrottledError{Err: e}
	case code == "ServiceUnavailable" || code == "ServiceUnavailableException" || e.Status >= 502:
		e.Kind = oci.ErrUnreachable
	case code == "ServerException" || code == "InternalFailure" || code == "InternalError" || e.Status >= 500:
		e.Kind = oci.ErrInterrupted
	case asked:
		e.Kind, e.Hint = oci.ErrDenied, "let the identity of AWS be used: its keys or token were refused"
		if noIdentity.role != nil {
			e.Hint = "allow sts:AssumeRole on " + noIdentity.role.ARN + ", and let the role's trust policy name this identity and its external id"
		}
	case isDenied(code):
		e.Kind, e.Hint = oci.ErrDenied, "allow the IAM action "+service+":"+call+" to this identity"
		if code == "ExpiredTokenException" || code == "InvalidSignatureException" || code == "UnrecognizedClientException" {
			e.Hint = "the credentials of AWS are wrong or have ended; check them, and this machine's clock"
		}
	case code == "RepositoryNotFoundException":
		e.Kind = oci.ErrRepositoryUnknown
	case code == "ImageNotFoundException", strings.HasSuffix(code, "QueueDoesNotExist"), strings.HasSuffix(code, "NonExistentQueue"):
		e.Kind = oci.ErrNotFound
	case code == "LimitExceededException":
		e.Kind, e.Hint = oci.ErrRefused, "a quota of the account is used up; ask AWS for more (Service Quotas)"
	case code == "KmsException":
		e.Kind, e.Hint = oci.ErrRefused, "check create.kms: the key has to exist in the registry's region, and its policy to let ECR and this identity use it"
	default:
		e.Kind = oci.ErrRefused
	}
	return e
}

func isThrottling(code string) bool {
	switch code {
	case "ThrottlingException", "Throttling", "ThrottledException", "TooManyRequestsException", "RequestThrottled", "RequestThrottledException", "RequestLimitExceeded":
		return true
	}
	return false
}

func isDenied(code string) bool {
	switch code {
	case "AccessDeniedException", "AccessDenied", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException",
		"InvalidClientTokenId", "MissingAuthenticationTokenException", "NotAuthorized", "OptInRequired",
		"AWS.SimpleQueueService.AccessDenied", "IncompleteSignature":
		return true
	}
	return false
}

// rootText leaves out the SDK's own words around an error.
func rootText(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// oneLine keeps printable text in one bounded line.
func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) }), " ")
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return s
}

// classify knows ECR's words in the distribution protocol's answers.
func classify(op oci.Operation, e *oci.RegistryError) {
	message := strings.ToLower(e.Message)
	switch {
	case e.Status >= 500:
		return
	case strings.Contains(message, "tag is immutable"), strings.Contains(message, "imagetagalreadyexists"), strings.Contains(message, "imagealreadyexists"):
		// An immutable tag refuses even the digest that it names
		// (aws/containers-roadmap #2380); whoever pushes compares, and an equal
		// digest is done.
		e.Kind = oci.ErrImmutable
		e.Hint = "the repository's tags are immutable; exclude this one in its tag mutability, or leave it out by tags.exclude"
	case strings.Contains(message, "referencedimagesnotfound"), strings.Contains(message, "referenced") && strings.Contains(message, "not found"):
		e.Kind = oci.ErrBlobUnknown
	case strings.Contains(message, "archived"):
		// A GET of it is documented to be a 404, which archive.go knows; this is
		// for those that tell.
		e.Kind, e.Hint = oci.ErrRefused, "the image is archived; "+hintArchived
	case e.Code == "UNSUPPORTED" && strings.Contains(message, "invalid json syntax"):
		// Said of OCI manifests without a mediaType of their own (containers/image
		// keeps a rewrite for it); bytes are not ours to change.
		e.Kind, e.Hint = oci.ErrUnsupported, "ECR takes no manifest without a mediaType field; build the image anew with one"
	case e.Status == http.StatusMethodNotAllowed && op == oci.OpManifestWrite:
		// Artifacts with a subject were answered so (aws/containers-roadmap #2783).
		e.Kind, e.Hint = oci.ErrUnsupported, "ECR refuses this kind of artifact"
	case strings.Contains(message, "kms"):
		e.Kind, e.Hint = oci.ErrRefused, "the repository's KMS key is disabled or may not be used; check the key and its policy"
	case errors.Is(e.Kind, oci.ErrDenied):
		if actions := iamActions(op); actions != "" && e.Status == http.StatusForbidden {
			e.Hint = "allow " + actions + " on this repository, by IAM or (across accounts) by its repository policy as well"
		}
	case errors.Is(e.Kind, oci.ErrRepositoryUnknown) && (op == oci.OpUploadStart || op == oci.OpManifestWrite):
		e.Hint = "create the repository, or set create: {missing: true} on this registry, or give ECR a creation template for CREATE_ON_PUSH"
	}
}

// iamActions are what a class of requests needs (ECR user guide, "Pushing" and
// "Pulling": required permissions).
func iamActions(op oci.Operation) string {
	switch op {
	case oci.OpManifestRead, oci.OpManifestHead:
		return "ecr:BatchGetImage"
	case oci.OpManifestWrite:
		return "ecr:PutImage"
	case oci.OpBlobRead:
		return "ecr:GetDownloadUrlForLayer"
	case oci.OpBlobHead:
		return "ecr:BatchCheckLayerAvailability and ecr:GetDownloadUrlForLayer"
	case oci.OpUploadStart:
		return "ecr:InitiateLayerUpload"
	case oci.OpBlobWrite:
		return "ecr:UploadLayerPart and ecr:CompleteLayerUpload"
	case oci.OpList:
		return "ecr:ListImages"
	case oci.OpReferrers:
		return "ecr:ListImageReferrers"
	case oci.OpDelete:
		return "ecr:BatchDeleteImage"
	}
	return ""
}
