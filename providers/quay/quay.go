// Package quay is the client of a Quay registry (Red Hat Quay, Project Quay,
// quay.io), and reads what it tells.
package quay

import (
	"net/http"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// oauthUser is the user whose password is an OAuth2 access token, which Quay's
// API takes too. Robot accounts may use the registry alone.
const oauthUser = "$oauthtoken"

// New gives a client; every request goes through rt.
//
// Its realm refuses scopes it cannot read: no action but pull and push, none
// for the catalog (quay/quay, endpoints/v2/v2auth.py).
func New(spec generic.Spec, rt http.RoundTripper) (*generic.Registry, error) {
	spec.Auth = spec.Auth.TokenAs(oauthUser)
	return generic.NewWith(spec, rt, generic.Ways{
		Resume: true, OwnScopes: true, NoCatalogScope: true, Tags: tags, Classify: classify,
	})
}

// classify knows the codes that are Quay's own (quay/quay, endpoints/v2/errors.py).
func classify(op oci.Operation, err *oci.RegistryError) {
	message := strings.ToLower(err.Message)
	switch {
	case err.Code == "TAG_IMMUTABLE":
		err.Kind = oci.ErrImmutable
		err.Hint = "the tag is immutable in Quay; lift that at the tag or in the organization's immutability policy, or leave it out by tags.exclude"
	case err.Code == "TAG_EXPIRED":
		err.Kind = oci.ErrNotFound
	case err.Code == "TOO_MANY_TAGS_REQUESTED":
		err.Kind = oci.ErrRefused
	case strings.Contains(message, "quota"):
		err.Kind = oci.ErrRefused
		err.Hint = "the organization's storage quota is used up; raise it in Quay or delete images there"
	case err.Status == http.StatusMethodNotAllowed && (strings.Contains(message, "read-only") || strings.Contains(message, "read only") || strings.Contains(message, "mirror")):
		err.Kind = oci.ErrRefused
		err.Hint = "the repository or all of Quay is read-only or a mirror; set the repository's state to normal"
	case (err.Status == http.StatusUnauthorized || err.Status == http.StatusForbidden) && (isPush(op) || op == oci.OpDelete):
		err.Kind = oci.ErrDenied
		err.Hint = "give the robot account write permission on the repository and, where it is to be created, the role Creator in a team of the organization"
	case err.Status == http.StatusUnauthorized || err.Status == http.StatusForbidden:
		err.Kind = oci.ErrDenied
		err.Hint = "give the robot account read permission on the repository, or check its token"
	}
}

func isPush(op oci.Operation) bool {
	return op == oci.OpManifestWrite || op == oci.OpUploadStart || op == oci.OpBlobWrite
}
