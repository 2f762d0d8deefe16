package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// pageSize is the most GitLab's API gives.
	pageSize = 100
	maxPage  = 16 << 20
)

// repositories lists by GitLab's API, since its registry has no catalog: those
// of the group or project that the prefix names, else of each project the
// account is a member of. The API is where the tokens come from.
func repositories(prefix string) func(context.Context, *generic.Registry) iter.Seq2[string, error] {
	return func(ctx context.Context, r *generic.Registry) iter.Seq2[string, error] {
		return func(yield func(string, error) bool) {
			a, err := open(ctx, r)
			if err != nil {
				yield("", unlistable(err))
				return
			}
			if prefix != "" {
				err = a.below(ctx, prefix, yield)
			} else {
				err = a.everywhere(ctx, yield)
			}
			if err != nil && !errors.Is(err, errStopped) {
				yield("", unlistable(err))
			}
		}
	}
}

// unlistable: who may not ask the API cannot ask the catalog either.
func unlistable(err error) error {
	var refused *oci.RegistryError
	if !errors.As(err, &refused) || refused.Status != 0 && refused.Status/100 != 4 || refused.Status == 0 && !errors.Is(err, oci.ErrDenied) {
		return err
	}
	e := *refused
	e.Kind = oci.ErrUnlistable
	e.Hint = "name the repositories literally under repositories.include, or log in with a personal, group or project access token that has read_api and read_registry"
	return &e
}

// errStopped: whoever listens has heard enough.
var errStopped = errors.New("stopped")

// An api is GitLab's, version 4.
type api struct {
	r     *generic.Registry
	base  *url.URL
	login http.Header
}

// open finds the API by the realm of the registry's tokens
// (https://gitlab.example.com/jwt/auth), which is GitLab itself. Its tokens are
// the registry's passwords.
func open(ctx context.Context, r *generic.Registry) (*api, error) {
	realm, err := r.Realm(ctx)
	if err != nil {
		return nil, err
	}
	a := &api{r: r, base: r.Address(), login: make(http.Header)}
	if realm != nil {
		base := *realm
		base.RawQuery, base.Path = "", strings.TrimSuffix(realm.Path, "/jwt/auth")
		a.base = &base
	}
	_, password, err := r.Credentials(ctx)
	if err != nil {
		return nil, err
	}
	if password != "" {
		a.login.Set("PRIVATE-TOKEN", password)
	}
	return a, nil
}

// below lists the repositories of a group and its subgroups, or of the project
// that the prefix names or lies in.
func (a *api) below(ctx context.Context, prefix string, yield func(string, error) bool) error {
	err := a.each(ctx, "/groups/"+url.PathEscape(prefix)+"/registry/repositories", yield)
	for project := prefix; isNotFound(err) && strings.Contains(project, "/"); project = project[:strings.LastIndexByte(project, '/')] {
		err = a.each(ctx, "/projects/"+url.PathEscape(project)+"/registry/repositories", yield)
	}
	return err
}

func isNotFound(err error) bool { return errors.Is(err, oci.ErrNotFound) }

// everywhere lists the repositories of each project.
func (a *api) everywhere(ctx context.Context, yield func(string, error) bool) error {
	type project struct {
		ID      int64  `json:"id"`
		Enabled *bool  `json:"container_registry_enabled"`
		Access  string `json:"container_registry_access_level"`
	}
	query := url.Values{"membership": {"true"}, "order_by": {"id"}, "sort": {"asc"}}
	for p, err := range pages[project](ctx, a, "/projects", query) {
		if err != nil {
			return err
		}
		if p.Enabled != nil && !*p.Enabled || p.Access == "disabled" {
			continue
		}
		err := a.each(ctx, "/projects/"+strconv.FormatInt(p.ID, 10)+"/registry/repositories", yield)
		if err != nil && !isNotFound(err) && !errors.Is(err, oci.ErrDenied) {
			return err // a project whose registry we may not see has nothing for us
		}
	}
	return nil
}

func (a *api) each(ctx context.Context, path string, yield func(string, error) bool) error {
	type repository struct {
		Path string `json:"path"`
	}
	for one, err := range pages[repository](ctx, a, path, url.Values{}) {
		if err != nil {
			return err
		}
		if !yield(one.Path, nil) {
			return errStopped
		}
	}
	return nil
}

// pages walks a list of the API.
func pages[T any](ctx context.Context, a *api, path string, query url.Values) iter.Seq2[T, error] {
	what := "GET " + path
	return generic.Pages(ctx, what, func(ctx context.Context, n int) ([]T, bool, error) {
		u := *a.base
		// A group's slashes stay escaped.
		u.RawPath = u.EscapedPath() + "/api/v4" + path
		u.Path, _ = url.PathUnescape(u.RawPath)
		query.Set("page", strconv.Itoa(n))
		query.Set("per_page", strconv.Itoa(pageSize))
		u.RawQuery = query.Encode()
		answer, err := a.r.AskAt(ctx, &u, "", generic.Request{Operation: oci.OpList, What: what, Header: a.login, Limit: maxPage})
		if err != nil {
			return nil, false, err
		}
		var items []T
		if json.Unmarshal(answer.Body, &items) != nil {
			return nil, false, a.r.Senseless(what, "the answer is no list")
		}
		return items, len(items) >= pageSize, nil
	})
}
