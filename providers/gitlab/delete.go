package gitlab

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

// deleteTag removes a tag by GitLab's API ("Delete a registry repository tag"),
// which leaves the manifest and its other tags. Whose registry a name belongs to
// shows in the projects' lists: one that the name is, or lies in.
func deleteTag(ctx context.Context, r *generic.Registry, full, tag string) error {
	what := "DELETE tag " + full + ":" + tag
	a, err := open(ctx, r)
	if err != nil {
		return err
	}
	for project := full; project != ""; project = above(project) {
		path := "/projects/" + url.PathEscape(project) + "/registry/repositories"
		id, err := a.repository(ctx, path, full)
		switch {
		case isNotFound(err):
			continue // no project of that name
		case err != nil:
			return mayDelete(err)
		case id == 0:
			return r.Fault(oci.RegistryError{Operation: what, Kind: oci.ErrRepositoryUnknown, Message: "the project has no such repository"})
		}
		u := *a.base
		u.RawPath = u.EscapedPath() + "/api/v4" + path + "/" + strconv.FormatInt(id, 10) + "/tags/" + url.PathEscape(tag)
		u.Path, _ = url.PathUnescape(u.RawPath)
		_, err = a.r.AskAt(ctx, &u, "", generic.Request{
			Operation: oci.OpDelete, What: what, Method: http.MethodDelete, Header: a.login,
			Accept: []int{http.StatusOK, http.StatusAccepted, http.StatusNoContent},
		})
		return mayDelete(err)
	}
	return r.Fault(oci.RegistryError{Operation: what, Kind: oci.ErrDenied, Message: "no project of that name is seen", Hint: deleteHint})
}

// above is what a path lies in, empty at the top.
func above(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

const deleteHint = "log in with a personal, group or project access token that has api, of a user with the role Maintainer (or Developer, for tags that nothing protects)"

// mayDelete gives a refusal the hint of what deleting takes.
func mayDelete(err error) error {
	var refused *oci.RegistryError
	if !errors.As(err, &refused) || !errors.Is(err, oci.ErrDenied) {
		return err
	}
	e := *refused
	e.Hint = deleteHint
	return &e
}

// repository gives the number of a project's registry repository, 0 where it
// has none of that name.
func (a *api) repository(ctx context.Context, path, full string) (int64, error) {
	type repository struct {
		ID   int64  `json:"id"`
		Path string `json:"path"`
	}
	for one, err := range pages[repository](ctx, a, path, url.Values{}) {
		if err != nil {
			return 0, err
		}
		if one.Path == full && one.ID > 0 {
			return one.ID, nil
		}
	}
	return 0, nil
}
