// Package harbor is the client of a Harbor registry, and reads what it tells.
package harbor

import (
	"net/http"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// New gives a client; every request goes through rt.
func New(spec generic.Spec, rt http.RoundTripper) (*Registry, error) {
	r, err := generic.NewWith(spec, rt, generic.Ways{
		Resume: true, Tags: tags, DeleteTag: deleteTag, Repositories: repositories(spec.Prefix), Classify: classify,
	})
	if err != nil {
		return nil, err
	}
	return &Registry{Registry: r, create: spec.Create}, nil
}

// classify knows Harbor's words for rules of its projects: they come as 412 or
// 403, whatever the rule.
func classify(op oci.Operation, err *oci.RegistryError) {
	message := strings.ToLower(err.Message)
	switch {
	case op == oci.OpCreate && (err.Status == http.StatusUnauthorized || err.Status == http.StatusForbidden):
		err.Kind = oci.ErrDenied
		err.Hint = "give the account the right to create projects (a system robot account), or create the project by hand"
	case op == oci.OpDelete && (err.Status == http.StatusUnauthorized || err.Status == http.StatusForbidden):
		err.Kind = oci.ErrDenied
		err.Hint = "give the account the right to delete tags (a robot account's \"Tag: Delete\", and \"Artifact: Delete\"; a user's role Maintainer)"
	case err.Code == "PROJECTPOLICYVIOLATION":
		err.Kind = oci.ErrDenied
		err.Hint = "the project's policy keeps this image from being pulled (unsigned or vulnerable); change the policy or exempt the account"
	case err.Status == http.StatusPreconditionFailed && strings.Contains(message, "immutable"):
		err.Kind = oci.ErrImmutable
		err.Hint = "an immutability rule of the project covers this tag; exempt it there or leave it out by tags.exclude"
	case (err.Status == http.StatusPreconditionFailed || err.Status == http.StatusForbidden) && strings.Contains(message, "quota"):
		err.Kind = oci.ErrRefused
		err.Hint = "the project's storage quota is used up"
	case err.Status == http.StatusForbidden && strings.Contains(message, "read only"):
		err.Kind = oci.ErrRefused
		err.Hint = "Harbor is in read-only mode"
	case err.Status == http.StatusMethodNotAllowed && strings.Contains(message, "proxy"):
		err.Kind = oci.ErrRefused
		err.Hint = "a proxy-cache project takes no pushes"
	case err.Status == http.StatusNotFound && strings.Contains(message, "project") && op != oci.OpManifestRead && op != oci.OpBlobRead:
		err.Kind = oci.ErrRepositoryUnknown
		err.Hint = "create the project in Harbor, or set create: {missing: true} for this registry"
	case err.Status != http.StatusUnauthorized && err.Status != http.StatusForbidden:
	case op == oci.OpManifestWrite || op == oci.OpUploadStart || op == oci.OpBlobWrite:
		err.Kind = oci.ErrDenied
		err.Hint = "give the robot account Repository: Push and Pull in the project (a user the role Developer)"
	case op == oci.OpList:
		err.Kind = oci.ErrDenied
		err.Hint = "give the robot account Repository: Pull and List, Artifact: List and Tag: List in the project (a user the role Limited Guest), or check its secret"
	case op == oci.OpToken || op == oci.OpPing:
	default:
		err.Kind = oci.ErrDenied
		err.Hint = "give the robot account Repository: Pull in the project (a user the role Limited Guest), or check its secret"
	}
}
