// Package nexus is the client of a Docker repository in Sonatype Nexus
// Repository, and reads its webhooks.
package nexus

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// New gives a client; every request goes through rt. Old versions answer 404 to
// a HEAD of manifests that a GET finds.
func New(spec generic.Spec, rt http.RoundTripper) (*generic.Registry, error) {
	if spec.Auth.Token != nil {
		return nil, fmt.Errorf("registry %s: Nexus takes no bare token: give username and password, or the two parts of a user token: %w", spec.Name, oci.ErrInvalid)
	}
	return generic.NewWith(spec, rt, generic.Ways{
		UnsureHead: true, Classify: classify,
		// By its own API, at an address that the connector's does not tell, Nexus
		// deletes components; by the registry's, digests with all their tags.
		DeleteTag: generic.NoTagDeletes("Nexus deletes no tag alone by the registry's API", "delete the tag in Nexus (Browse, or a cleanup policy)"),
	})
}

func classify(op oci.Operation, err *oci.RegistryError) {
	message := strings.ToLower(err.Message)
	push := op == oci.OpManifestWrite || op == oci.OpUploadStart || op == oci.OpBlobWrite
	switch {
	case strings.Contains(message, "does not allow updating"):
		err.Kind = oci.ErrImmutable
		err.Hint = "the repository's deployment policy is \"Disable redeploy\"; allow redeploy (of latest alone or of all), or leave the tag out by tags.exclude"
	case strings.Contains(message, "read-only"), strings.Contains(message, "read only"):
		err.Kind = oci.ErrRefused
		err.Hint = "the repository's deployment policy is \"Read-only\", or Nexus is frozen or out of disk"
	case strings.Contains(message, "quota"):
		err.Kind = oci.ErrRefused
		err.Hint = "the blob store's soft quota is used up"
	case push && (err.Status == http.StatusNotFound || err.Status == http.StatusMethodNotAllowed):
		err.Kind = oci.ErrRepositoryUnknown
		err.Hint = "push to a hosted Docker repository: check the connector's port, or the repository's name at the head of the address's path"
	case err.Status == http.StatusUnauthorized:
		err.Kind = oci.ErrDenied
		err.Hint = "check auth of this registry, and that the Docker Bearer Token Realm is active in Nexus (Security, Realms)"
	case err.Status == http.StatusForbidden && op == oci.OpDelete:
		err.Kind = oci.ErrDenied
		err.Hint = "give the account nx-repository-view-docker-REPOSITORY-delete"
	case err.Status == http.StatusForbidden && push:
		err.Kind = oci.ErrDenied
		err.Hint = "give the account nx-repository-view-docker-REPOSITORY-add, -edit, -read and -browse"
	case err.Status == http.StatusForbidden:
		err.Kind = oci.ErrDenied
		err.Hint = "give the account nx-repository-view-docker-REPOSITORY-read and -browse"
	}
}
