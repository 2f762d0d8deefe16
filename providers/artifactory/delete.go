package artifactory

import (
	"context"
	"net/http"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// deleteTag removes a tag's folder (JFrog, "Deletion and Cleanup of Docker Tags
// and Repositories"): each tag has one of its own, with its manifest in it.
func deleteTag(ctx context.Context, r *generic.Registry, full, tag string) error {
	what := "DELETE tag " + full + ":" + tag
	if r.Prefix() == "" || !strings.HasPrefix(full, r.Prefix()+"/") {
		return r.Fault(oci.RegistryError{
			Operation: what, Kind: oci.ErrUnsupported, Message: "the address does not tell the repository's key",
			Hint: "write the registry's address with the key, as in acme.jfrog.io/KEY, or delete the tag in Artifactory",
		})
	}
	login, err := r.Login(ctx)
	if err != nil {
		return err
	}
	u := r.Address()
	u.Path = "/artifactory/" + full + "/" + tag
	_, err = r.AskAt(ctx, u, login, generic.Request{
		Operation: oci.OpDelete, What: what, Method: http.MethodDelete, Accept: []int{http.StatusNoContent, http.StatusOK},
	})
	return err
}
