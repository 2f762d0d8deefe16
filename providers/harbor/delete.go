package harbor

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// deleteTag removes a tag by Harbor's API (`DELETE …/artifacts/{reference}/tags/{tag}`):
// the artifact stays, and so do its other tags, while a delete by the
// registry's own API takes the artifact with them.
func deleteTag(ctx context.Context, r *generic.Registry, full, tag string) error {
	what := "DELETE tag " + full + ":" + tag
	project, name, ok := strings.Cut(full, "/")
	if !ok {
		return r.Fault(oci.RegistryError{Operation: what, Kind: oci.ErrRefused, Message: "a name in Harbor begins with a project"})
	}
	login, err := r.Basic(ctx)
	if err != nil {
		return err
	}
	u := r.Address()
	u.Path = "/api/v2.0/projects/" + project + "/repositories/" + url.PathEscape(name) + "/artifacts/" + tag + "/tags/" + tag
	_, err = r.AskAt(ctx, u, login, generic.Request{Operation: oci.OpDelete, What: what, Method: http.MethodDelete})
	return err
}
