package ecr

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/aws/smithy-go"

	"github.com/twinport/twinport/replicator/oci"
)

func TestAPIErrors(t *testing.T) {
	silent := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	code := func(code string) error {
		return &smithy.OperationError{ServiceID: "ECR", Err: &smithy.GenericAPIError{Code: code, Message: "as it\nsays"}}
	}
	for name, c := range map[string]struct {
		err  error
		want error
		hint string
	}{
		"no answer":                {silent, oci.ErrUnreachable, ""},
		"the breaker":              {fmt.Errorf("send: %w", oci.ErrUnreachable), oci.ErrUnreachable, ""},
		"no answer of STS":         {&identityError{err: silent}, oci.ErrUnreachable, ""},
		"no identity":              {&identityError{err: fmt.Errorf("no EC2 IMDS role found, operation error ec2imds: %w", silent)}, oci.ErrDenied, "IRSA"},
		"keys refused":             {&identityError{err: code("InvalidClientTokenId")}, oci.ErrDenied, "keys or token"},
		"denied":                   {code("AccessDeniedException"), oci.ErrDenied, "ecr:CreateRepository"},
		"ended":                    {code("ExpiredTokenException"), oci.ErrDenied, "clock"},
		"quota":                    {code("LimitExceededException"), oci.ErrRefused, "Service Quotas"},
		"key":                      {code("KmsException"), oci.ErrRefused, "create.kms"},
		"parameter":                {code("InvalidParameterException"), oci.ErrRefused, ""},
		"no repository":            {code("RepositoryNotFoundException"), oci.ErrRepositoryUnknown, ""},
		"no queue":                 {code("AWS.SimpleQueueService.NonExistentQueue"), oci.ErrNotFound, ""},
		"their fault":              {code("ServerException"), oci.ErrInterrupted, ""},
		"their fault, for a while": {code("ServiceUnavailable"), oci.ErrUnreachable, ""},
	} {
		err := apiError(t.Context(), "us", "ecr", "CreateRepository", "team/app", c.err)
		var e *oci.RegistryError
		if !errors.Is(err, c.want) || !errors.As(err, &e) || !strings.Contains(e.Hint, c.hint) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %v with a hint of %q", name, err, c.want, c.hint)
		}
	}
	var throttled *oci.ThrottledError
	if err := apiError(t.Context(), "us", "ecr", "X", "", code("ThrottlingException")); !errors.As(err, &throttled) {
		t.Errorf("throttled: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := apiError(ctx, "us", "ecr", "X", "", code("AccessDeniedException")); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if apiError(ctx, "us", "ecr", "X", "", nil) != nil {
		t.Error("nothing is an error")
	}
}
