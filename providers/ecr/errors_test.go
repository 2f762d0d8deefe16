package ecr_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/providertest"
	"github.com/twinport/twinport/replicator/oci"
)

// TestMissingPermissions: whatever is taken away is named.
func TestMissingPermissions(t *testing.T) {
	e := &providertest.ECR{}
	open := start(t, e, nil)
	repo := open(t).Repository("team/app")
	m := providertest.PushImage(t, repo, "v1", nil)
	blob := providertest.PushBlob(t, repo, providertest.Random(10))
	upload := func(repo oci.Repository) error {
		content := providertest.Random(10)
		u, _, err := repo.Start(t.Context(), providertest.Describe(v1.MediaTypeImageLayer, content), nil)
		if err != nil {
			return err
		}
		return u.Put(t.Context(), providertest.Bytes(content))
	}
	for action, ask := range map[string]func(oci.Registry, oci.Repository) error{
		"ecr:GetAuthorizationToken": func(_ oci.Registry, r oci.Repository) error { _, err := r.Resolve(t.Context(), "v1"); return err },
		"ecr:BatchGetImage":         func(_ oci.Registry, r oci.Repository) error { _, err := r.FetchManifest(t.Context(), "v1"); return err },
		"ecr:PutImage": func(_ oci.Registry, r oci.Repository) error {
			_, err := r.PushManifest(t.Context(), "v2", m)
			return err
		},
		"ecr:GetDownloadUrlForLayer": func(_ oci.Registry, r oci.Repository) error {
			_, err := r.Fetch(t.Context(), blob)
			return err
		},
		"ecr:BatchCheckLayerAvailability": func(_ oci.Registry, r oci.Repository) error { _, err := r.Stat(t.Context(), blob.Digest); return err },
		"ecr:InitiateLayerUpload":         func(_ oci.Registry, r oci.Repository) error { return upload(r) },
		"ecr:CompleteLayerUpload":         func(_ oci.Registry, r oci.Repository) error { return upload(r) },
		"ecr:CreateRepository":            func(g oci.Registry, _ oci.Repository) error { return upload(g.Repository("team/other")) },
		"ecr:ListImageReferrers": func(_ oci.Registry, r oci.Repository) error {
			for _, err := range r.Referrers(t.Context(), m.Digest) {
				return err
			}
			return nil
		},
	} {
		reg := open(t)
		if action != "ecr:GetAuthorizationToken" { // which is asked for once
			if err := reg.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		e.Deny(action)
		err := ask(reg, reg.Repository("team/app"))
		e.Deny()
		if !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), action) {
			t.Errorf("without %s: %v", action, err)
		}
		var refused *oci.RegistryError
		if errors.As(err, &refused) && !strings.Contains(refused.Hint, action) {
			t.Errorf("without %s: hint %q", action, refused.Hint)
		}
	}
	e.Deny("ecr:DescribeRepositories")
	for _, err := range open(t).Repositories(t.Context()) {
		if !errors.Is(err, oci.ErrUnlistable) || !strings.Contains(err.Error(), "ecr:DescribeRepositories") {
			t.Errorf("without ecr:DescribeRepositories: %v", err)
		}
	}
	e.Deny("ecr:DescribeImages") // the plain list serves instead
	tags := 0
	for _, err := range open(t).Repository("team/app").Tags(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		tags++
	}
	if tags != 1 {
		t.Errorf("without ecr:DescribeImages: %d tags, want 1", tags)
	}
	e.Deny("ecr:DescribeImages", "ecr:ListImages")
	for _, err := range open(t).Repository("team/app").Tags(t.Context()) {
		if !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "ecr:ListImages") {
			t.Errorf("without any list: %v", err)
		}
	}
}

func TestIdentityRefused(t *testing.T) {
	e := &providertest.ECR{Role: "arn:aws:iam::123456789012:role/twinport"}
	ask := func(role string) error {
		reg := start(t, e, func(s *generic.Spec) {
			if role != "" {
				s.Auth.AssumeRole = &generic.AssumeRole{ARN: role}
			}
		})(t)
		_, err := reg.Repository("team/app").Resolve(t.Context(), "v1")
		return err
	}
	if err := ask("arn:aws:iam::123456789012:role/other"); !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "allow sts:AssumeRole on arn:aws:iam::123456789012:role/other") {
		t.Errorf("a role that may not be taken: %v", err)
	}
	open := start(t, e, nil)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	if _, err := open(t).Repository("team/app").Resolve(t.Context(), "v1"); !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "no identity of AWS was found") {
		t.Errorf("no identity at all: %v", err)
	}
}

func TestThrottled(t *testing.T) {
	e := &providertest.ECR{Quotas: map[string]float64{"DescribeRepositories": 0.001}}
	reg := start(t, e, nil)(t)
	for _, err := range reg.Repositories(t.Context()) {
		var throttled *oci.ThrottledError
		if !errors.As(err, &throttled) {
			t.Errorf("over a quota: %v, want throttled", err)
		}
	}
}

// TestOwnLogin: with a password of the config, AWS is not asked.
func TestOwnLogin(t *testing.T) {
	e := &providertest.ECR{}
	open := start(t, e, func(s *generic.Spec) {
		s.Region = ""
		s.Auth = generic.Auth{Username: "AWS", Password: func() (string, error) { return "password-of-ecr-1", nil }}
	})
	providertest.PushImage(t, start(t, e, nil)(t).Repository("team/app"), "v1", nil) // gives the token
	calls := e.Calls("GetAuthorizationToken")
	n := 0
	for tag, err := range open(t).Repository("team/app").Tags(t.Context()) {
		if err != nil || tag.Name != "v1" {
			t.Errorf("%v, %v", tag, err)
		}
		n++
	}
	if n != 1 || e.Calls("GetAuthorizationToken") != calls || e.Calls("DescribeImages") > 0 {
		t.Errorf("%d tags; AWS was asked", n)
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status        int
		code, message string
		want          error
		hint          string
	}{
		{400, "TAG_INVALID", "The image tag 'v1' already exists in the 'a/b' repository and cannot be overwritten because the tag is immutable.", oci.ErrImmutable, "tag mutability"},
		{400, "UNSUPPORTED", "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'", oci.ErrUnsupported, "mediaType"},
		{400, "MANIFEST_INVALID", "ReferencedImagesNotFoundException: Images with digests '[sha256:…]' required for pushing image not found", oci.ErrBlobUnknown, ""},
		{403, "DENIED", "ImageArchivedException: the image is archived", oci.ErrRefused, "restore"},
		{405, "UNSUPPORTED", "Unsupported", oci.ErrUnsupported, "artifact"},
		{400, "KMS_EXCEPTION", "The KMS key is disabled", oci.ErrRefused, "KMS"},
	} {
		e := &providertest.ECR{}
		reg := start(t, e, nil)(t)
		e.Make("team/app", providertest.ECRRepository{})
		if err := reg.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := e.Registry.Before
		e.Registry.Before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				providertest.Fail(w, c.status, c.code, c.message)
				return true
			}
			return before(w, r)
		}
		_, err := reg.Repository("team/app").PushManifest(t.Context(), "v1", providertest.Index())
		var refused *oci.RegistryError
		if !errors.Is(err, c.want) || !errors.As(err, &refused) || !strings.Contains(refused.Hint, c.hint) {
			t.Errorf("%d %s %s: %v, want %v with a hint of %q", c.status, c.code, c.message, err, c.want, c.hint)
		}
	}
}
