// Package artifactory is the client of Docker repositories in JFrog
// Artifactory, and reads its webhooks.
package artifactory

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// New gives a client; every request goes through rt. Identity and access tokens
// are taken as they are.
func New(spec generic.Spec, rt http.RoundTripper) (*generic.Registry, error) {
	return generic.NewWith(spec, rt, generic.Ways{
		Resume: true, NoTag: isUntagged, Repositories: repositories(strings.Trim(spec.Prefix, "/")), Classify: classify,
		DeleteTag: deleteTag, DropsUntagged: true,
	})
}

// untagged is how Artifactory's folders, and some of its tag lists, name what
// was pushed by digest.
var untagged = regexp.MustCompile(`^sha256(?::|__)[a-f0-9]{64}$`)

func isUntagged(name string) bool { return untagged.MatchString(name) }

func classify(op oci.Operation, err *oci.RegistryError) {
	message := strings.ToLower(err.Message)
	push := op == oci.OpManifestWrite || op == oci.OpUploadStart || op == oci.OpBlobWrite
	switch {
	case strings.Contains(message, "delete/overwrite"), strings.Contains(message, "delete permission"), strings.Contains(message, "overwrite"):
		err.Kind = oci.ErrDenied
		err.Hint = "moving a tag overwrites it: give the account Delete/Overwrite on the repository"
	case strings.Contains(message, "quota"), err.Status == http.StatusInsufficientStorage:
		err.Kind = oci.ErrRefused
		err.Hint = "Artifactory's storage quota is used up"
	case push && (strings.Contains(message, "remote") || strings.Contains(message, "virtual") || strings.Contains(message, "no local repository")):
		err.Kind = oci.ErrRefused
		err.Hint = "push to a local repository, or set the virtual repository's default deployment repository"
	case push && err.Status == http.StatusNotFound && err.Code != "BLOB_UPLOAD_UNKNOWN" && op != oci.OpBlobWrite:
		err.Kind = oci.ErrRepositoryUnknown
		err.Hint = "create a local Docker repository in Artifactory whose key is the first part of the name"
	case err.Status != http.StatusUnauthorized && err.Status != http.StatusForbidden:
	case op == oci.OpDelete:
		err.Kind = oci.ErrDenied
		err.Hint = "give the account Delete/Overwrite on the repository"
	case push:
		err.Kind = oci.ErrDenied
		err.Hint = "give the account Read, Deploy/Cache and Delete/Overwrite on the repository"
	default:
		err.Kind = oci.ErrDenied
		err.Hint = "give the account Read on the repository, or check its token"
	}
}
