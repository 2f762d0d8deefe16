// Package gitea is the client of the container registry in Gitea and Forgejo,
// and reads their webhooks.
package gitea

import (
	"net/http"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// New gives a client; every request goes through rt. An upload that breaks
// begins anew: what it left lies on the server's own disk until it is cleared.
func New(spec generic.Spec, rt http.RoundTripper) (*generic.Registry, error) {
	spec.Auth = spec.Auth.TokenAs("token") // any user goes with a token
	return generic.NewWith(spec, rt, generic.Ways{DropsUntagged: true, Classify: classify})
}

func classify(op oci.Operation, err *oci.RegistryError) {
	message := strings.ToLower(err.Message)
	push := op == oci.OpManifestWrite || op == oci.OpUploadStart || op == oci.OpBlobWrite
	switch {
	case strings.Contains(message, "quota"):
		err.Kind = oci.ErrRefused
		err.Hint = "the owner's quota of packages is used up; raise it (quota in Forgejo, LIMIT_TOTAL_OWNER_SIZE or LIMIT_SIZE_CONTAINER of [packages])"
	case op == oci.OpUploadStart && err.Status == http.StatusNotFound:
		err.Kind = oci.ErrRepositoryUnknown
		err.Hint = "create the user or organization that the name begins with"
	case err.Status != http.StatusUnauthorized && err.Status != http.StatusForbidden:
	case push, op == oci.OpDelete:
		err.Kind = oci.ErrDenied
		err.Hint = "log in with an access token that has write:package, of a user who may write packages of that owner"
	default:
		err.Kind = oci.ErrDenied
		err.Hint = "log in with an access token that has read:package, of a user who may see that owner's packages"
	}
}
