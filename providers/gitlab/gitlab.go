// Package gitlab is the client of GitLab's container registry. Its events are
// those of CNCF Distribution (generic.Webhook).
package gitlab

import (
	"net/http"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// New gives a client; every request goes through rt. GitLab's tokens live a few
// minutes; the client refreshes them ahead of that.
func New(spec generic.Spec, rt http.RoundTripper) (*generic.Registry, error) {
	spec.Auth = spec.Auth.TokenAs("oauth2") // any user goes with a token
	return generic.NewWith(spec, rt, generic.Ways{
		Repositories: repositories(strings.Trim(spec.Prefix, "/")), Tags: (&lister{}).tags,
		DeleteTag: deleteTag, Classify: classify,
	})
}

func classify(op oci.Operation, err *oci.RegistryError) {
	message := strings.ToLower(err.Message)
	push := op == oci.OpManifestWrite || op == oci.OpUploadStart || op == oci.OpBlobWrite
	switch {
	case op == oci.OpManifestWrite && (strings.Contains(message, "protected") || strings.Contains(message, "immutable")):
		err.Kind = oci.ErrImmutable
		err.Hint = "a protection rule of the project covers this tag; give the account the role it asks for, or leave the tag out by tags.exclude"
	case push && err.Status == http.StatusNotFound && err.Code == "NAME_UNKNOWN":
		err.Kind = oci.ErrRepositoryUnknown
		err.Hint = "create the project in GitLab and turn its container registry on"
	case err.Status == http.StatusMethodNotAllowed, strings.Contains(message, "read-only"):
		err.Kind = oci.ErrRefused
		err.Hint = "GitLab's registry is read-only, as during its garbage collection"
	case err.Status != http.StatusUnauthorized && err.Status != http.StatusForbidden:
	case op == oci.OpDelete:
		err.Kind = oci.ErrDenied
		err.Hint = deleteHint
	case push:
		err.Kind = oci.ErrDenied
		err.Hint = "create the project, turn its container registry on, and give the token write_registry (a user the role Developer)"
	default:
		err.Kind = oci.ErrDenied
		err.Hint = "give the token read_registry and, to list projects, read_api"
	}
}
