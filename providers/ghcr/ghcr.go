// Package ghcr is the client of GitHub's container registry, and reads the
// webhooks of GitHub's packages.
package ghcr

import (
	"context"
	"iter"
	"net/http"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// New gives a client; every request goes through rt.
//
// A ranged PATCH may carry at most 4 MiB there (416 otherwise), so uploads that
// break begin anew. The referrers API is not served: it answers 404, redirects
// to the web site, or throttles. There is no catalog. (All three seen by users
// of other clients, documented nowhere.)
func New(spec generic.Spec, rt http.RoundTripper) (*generic.Registry, error) {
	spec.Auth = spec.Auth.TokenAs("token") // any user goes with a token
	return generic.NewWith(spec, rt, generic.Ways{
		ThrottledReferrers: true, Repositories: noCatalog, Classify: classify,
		// The packages API deletes versions: a manifest with all its tags.
		DeleteTag: generic.NoTagDeletes("GitHub deletes an image with all its tags, never a tag alone", "delete the version in the package's settings, if nobody needs its other tags"),
	})
}

func noCatalog(context.Context, *generic.Registry) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		yield("", &oci.RegistryError{
			Operation: "list repositories", Message: "ghcr.io has no catalog", Kind: oci.ErrUnlistable,
			Hint: "name the repositories literally under repositories.include",
		})
	}
}

// classify knows GitHub's words for tokens that may not.
func classify(op oci.Operation, err *oci.RegistryError) {
	message := strings.ToLower(err.Message)
	switch {
	case op == oci.OpDelete && (err.Status == http.StatusMethodNotAllowed || err.Status == http.StatusNotFound):
		err.Kind = oci.ErrUnsupported
		err.Hint = "ghcr.io deletes by the API of GitHub's packages alone"
	case err.Status != http.StatusUnauthorized && err.Status != http.StatusForbidden:
	case op == oci.OpDelete:
		err.Kind = oci.ErrDenied
		err.Hint = "ghcr.io deletes by the API of GitHub's packages alone"
	case strings.Contains(message, "write_package"), strings.Contains(message, "create_package"), isPush(op):
		err.Kind = oci.ErrDenied
		err.Hint = "log in with a classic personal access token that has write:packages and, for packages that exist, write access there"
	case strings.Contains(message, "scopes"):
		err.Kind = oci.ErrDenied
		err.Hint = "fine-grained tokens are not taken; make a classic personal access token with read:packages (write:packages at a destination)"
	default:
		err.Kind = oci.ErrDenied
		err.Hint = "log in with a classic personal access token that has read:packages, and give its user access to the package"
	}
}

func isPush(op oci.Operation) bool {
	return op == oci.OpManifestWrite || op == oci.OpUploadStart || op == oci.OpBlobWrite
}
