// Package zot is the client of a zot registry, and reads what it tells.
package zot

import (
	"net/http"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// New gives a client; every request goes through rt.
func New(spec generic.Spec, rt http.RoundTripper) (*generic.Registry, error) {
	return generic.NewWith(spec, rt, generic.Ways{Resume: true, DropsUntagged: true, Classify: classify})
}

// classify knows that zot takes OCI manifests alone unless told otherwise, that
// it keeps what an index names, and the actions of its policies (zot, "User
// authentication and authorization").
func classify(op oci.Operation, err *oci.RegistryError) {
	if op == oci.OpManifestWrite && err.Status == http.StatusUnsupportedMediaType {
		err.Kind = oci.ErrUnsupported
		err.Hint = `docker manifests need http.compat: ["docker2s2"] in zot's config`
	}
	if op == oci.OpDelete && err.Status == http.StatusMethodNotAllowed {
		err.Kind = oci.ErrRefused
		err.Hint = "zot removes no manifest that an index names; remove the index's tag first"
	}
	if err.Status != http.StatusForbidden {
		return
	}
	action := `"read"`
	switch op {
	case oci.OpManifestWrite, oci.OpBlobWrite, oci.OpUploadStart:
		action = `"create" and, to move tags, "update"`
	case oci.OpDelete:
		action = `"delete"`
	}
	err.Kind = oci.ErrDenied
	err.Hint = "give the user " + action + " in a policy of http.accessControl that covers the repository"
}
